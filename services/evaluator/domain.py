"""Evaluations and golden data set versions: frozen values and pure transitions. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from fleet_statistics import intervals, paired
from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.golden.samples import ContextUse
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.judgement import Standing, Verdict

State = Literal["queued", "running", "scored", "failed"]


class EvaluationFailure(Exception):
    """No score can be made; the message is the reason that EvaluationFailed carries."""


class BadVersion(ValueError):
    """A golden data set version that cannot be; the message gives what would be right."""


@dataclass(frozen=True)
class GoldenVersion:
    """One version of a golden data set. sha256 is set once it is frozen."""

    dataset_id: str
    version: str
    domain: str
    description: str
    context_use: ContextUse
    created_by: str
    created_at: datetime
    frozen_at: datetime | None
    sha256: str | None
    total_samples: int
    let_go_at: datetime | None = None
    """Since when its samples are gone by the domain's rule."""
    erased_by: Sequence[str] = ()
    """Erasures that took samples out of it since it was frozen."""

    @property
    def frozen(self) -> bool:
        return self.frozen_at is not None


def parse_version(text: str) -> tuple[int, int, int]:
    """(major, minor, patch); raises BadVersion."""
    match = re.fullmatch(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", text)
    if match is None:
        raise BadVersion(f"version: {text!r} is no semantic version; write for example 1.0.0")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def next_version(version: str) -> str:
    """What a changed data set is called: the next minor version."""
    major, minor, _ = parse_version(version)
    return f"{major}.{minor + 1}.0"


def split_reference(reference: str) -> tuple[str, str | None]:
    """`id@1.2.0` names an exact version, `id` the newest."""
    dataset_id, _, version = reference.partition("@")
    return dataset_id, version or None


@dataclass(frozen=True)
class Evaluation:
    """What is judged with what. artifact_sha256 is empty where it is not known yet: the first answer pins it."""

    evaluation_id: str
    adapter_id: str
    family: str
    domain: str
    artifact_sha256: str
    base_model: str
    wanted_dataset: str
    dataset_id: str | None
    version: str | None
    golden_sha256: str | None
    judge: str
    max_tokens: int
    pass_threshold: float
    state: State
    total: int
    reason: str
    requested_by: str
    created_at: datetime
    waiting_since: datetime | None
    finished_at: datetime | None
    compares_for: str = ""
    """The evaluation that this one only serves to compare with."""

    @property
    def over(self) -> bool:
        return self.state in {"scored", "failed"}


@dataclass(frozen=True)
class SampleResult:
    """One answer and its judgement (judgement.py); overall is None for an unjudged one alone."""

    sample_id: str
    answer: str
    generation_id: str
    finish_reason: str
    overall: float | None
    verdicts: Mapping[Criterion, Verdict]
    standing: Standing = Standing.DECIDED
    why: str = ""
    vetoes: tuple[str, ...] = ()
    metrics: Mapping[str, Measured] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        return self.standing is Standing.DECIDED

    def passes(self, threshold: float) -> bool:
        """Decided, at or above the threshold, and without a broken must-rule."""
        return self.decided and self.overall is not None and self.overall >= threshold and not self.vetoes


@dataclass(frozen=True)
class Served:
    """Who gave an answer, as in the response."""

    adapter_id: str
    artifact_sha256: str


def check_served(evaluation: Evaluation, served: Served) -> str:
    """The digest that answered; raises EvaluationFailure unless the very adapter did, never the base model."""
    if served.adapter_id != evaluation.adapter_id:
        answered = served.adapter_id or "the base model"
        raise EvaluationFailure(f"asked inference for {evaluation.adapter_id}, but {answered} answered")
    if not re.fullmatch(r"[0-9a-f]{64}", served.artifact_sha256):
        raise EvaluationFailure(
            f"inference did not say which artifact of {evaluation.adapter_id} answered "
            f"(lorafleet.artifact_sha256: {served.artifact_sha256!r})"
        )
    if evaluation.artifact_sha256 and served.artifact_sha256 != evaluation.artifact_sha256:
        raise EvaluationFailure(
            f"artifact {served.artifact_sha256} of {evaluation.adapter_id} answered, "
            f"but {evaluation.artifact_sha256} is to be judged"
        )
    return served.artifact_sha256


def differing(judged: Evaluation, before: Evaluation) -> str:
    """What of golden content, judge and longest answer differs between two evaluations; empty for nothing."""
    differences = []
    if judged.golden_sha256 != before.golden_sha256:
        now, then = (f"{one.dataset_id}@{one.version}" for one in (judged, before))
        differences.append(f"golden data set {now}, before {then}")
    if judged.judge != before.judge:
        differences.append(f"judge {judged.judge}, before {before.judge}")
    if judged.max_tokens != before.max_tokens:
        differences.append(f"answers of {judged.max_tokens} tokens, before {before.max_tokens}")
    return "; ".join(differences)


def waited_out(evaluation: Evaluation, now: datetime, limit: timedelta) -> bool:
    """Whether inference has been unable to serve the adapter for longer than the limit."""
    return evaluation.waiting_since is not None and now - evaluation.waiting_since > limit


@dataclass(frozen=True)
class Summary:
    """The result over all samples. Scores on 0–100, criteria on 0–10, rates 0 to 1.

    Means are those of the `decided` of the `samples`; both intervals count the others as missing evidence. `submission`
    is the family's try at this golden data set, from 1, and sets the confidence. `cut_answers` reached the longest
    length.
    """

    score: intervals.Interval
    pass_rate: intervals.Interval
    passed: int
    samples: int
    decided: int
    submission: int
    cut_answers: int
    undecided: int
    unjudged: int
    confidence: float
    criteria: Mapping[str, float]
    by_difficulty: Mapping[str, float]


def summarise(
    results: Sequence[SampleResult], difficulties: Mapping[str, str], threshold: float, submission: int = 1
) -> Summary:
    """Estimates over the scored results; the samples of `difficulties` that have none are missing evidence.

    Raises EvaluationFailure where none is decided, with the reason of the last.
    """
    if not results:
        raise EvaluationFailure(f"none of the {len(difficulties)} golden samples has a score")
    ordered = sorted(results, key=lambda result: result.sample_id)
    decided = [result for result in ordered if result.decided]
    if not decided:
        raise EvaluationFailure(
            f"the judge could decide none of {len(ordered)} samples, the last since {ordered[-1].why}; "
            "give the samples rules that settle them, or choose a language model as judge"
        )
    scores = [result.overall for result in decided if result.overall is not None]
    passed = sum(result.passes(threshold) for result in decided)
    missing = len(difficulties) - len(decided)
    confidence = intervals.confidence_of(submission)
    groups: dict[str, list[float]] = {}
    for result, score in zip(decided, scores, strict=True):
        groups.setdefault(difficulties[result.sample_id], []).append(score)
    return Summary(
        score=intervals.mean_score(scores, confidence, missing),
        pass_rate=intervals.pass_rate(passed, len(decided), confidence, missing),
        passed=passed,
        samples=len(difficulties),
        decided=len(decided),
        submission=submission,
        cut_answers=sum(result.finish_reason == "length" for result in ordered),
        undecided=sum(result.standing is Standing.UNDECIDED for result in ordered),
        unjudged=sum(result.standing is Standing.UNJUDGED for result in ordered),
        confidence=confidence,
        criteria={str(c): sum(r.verdicts[c].score for r in decided) / len(decided) for c in Criterion},
        by_difficulty={name: sum(group) / len(group) for name, group in sorted(groups.items())},
    )


def compare(new: Sequence[SampleResult], old: Sequence[SampleResult]) -> paired.Comparison | None:
    """The new results against those of another version on the same golden samples, paired (LA-3.4).

    Only samples that are decided for both are compared.
    """
    mine, theirs = ([result for result in results if result.decided] for results in (new, old))
    return paired.compare(
        _scores(mine), _scores(theirs), {str(c): (_by_sample(mine, c), _by_sample(theirs, c)) for c in Criterion}
    )


def scores_by_sample(results: Sequence[SampleResult]) -> dict[str, dict[str, float]]:
    """The decided samples' scores by sample id: `overall` on 0 to 100, each criterion on 0 to 10."""
    return {
        result.sample_id: {"overall": result.overall} | {str(c): result.verdicts[c].score for c in Criterion}
        for result in sorted(results, key=lambda result: result.sample_id)
        if result.decided and result.overall is not None
    }


def _scores(results: Sequence[SampleResult]) -> dict[str, float]:
    return {result.sample_id: result.overall for result in results if result.overall is not None}


def _by_sample(results: Sequence[SampleResult], criterion: Criterion) -> dict[str, float]:
    return {result.sample_id: result.verdicts[criterion].score for result in results}
