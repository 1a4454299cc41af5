"""A judge's result for one answer: five criteria, the overall score, and whether it could decide at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from services.evaluator.judging.criteria import Criterion

WEIGHTS: Mapping[Criterion, float] = MappingProxyType(
    {
        Criterion.ACCURACY: 2.0,
        Criterion.RELEVANCE: 1.5,
        Criterion.STYLE: 1.0,
        Criterion.COMPLETENESS: 1.5,
        Criterion.COHERENCE: 1.0,
    }
)
VETOED_AT_MOST = 4.0
"""Of 10: what any criterion keeps where a must-rule is broken; the broken one's criterion keeps nothing."""

UNDECIDED_AT_MOST = 8.45
"""Of 10: what any criterion of an estimate has, so that its overall score stays below the line from which LA-5.1
approves (85)."""


class Standing(StrEnum):
    """What a sample's judgement is worth as evidence."""

    DECIDED = "decided"
    UNDECIDED = "undecided"
    """The judge saw the answer and cannot decide; its scores are an estimate."""
    UNJUDGED = "unjudged"
    """No verdict could be had; there is no score."""


@dataclass(frozen=True)
class Verdict:
    """One criterion's score, 0–10, and why."""

    score: float
    reason: str


@dataclass(frozen=True)
class Judgement:
    """All five verdicts and their weighted overall score, 0–100.

    An unjudged answer has neither. `why` is what settled the answer, or why nothing did. `vetoes` are the
    must-rules that it breaks: with any score, it has not passed.
    """

    verdicts: Mapping[Criterion, Verdict]
    overall: float | None
    standing: Standing = Standing.DECIDED
    why: str = ""
    vetoes: tuple[str, ...] = field(default=())


def overall(scores: Mapping[Criterion, float]) -> float:
    """Weighted sum of the criteria (each 0–10) / 7.0 × 10, on 0–100 (LA-3.1)."""
    return sum(WEIGHTS[c] * scores[c] for c in Criterion) / sum(WEIGHTS.values()) * 10


def judged(verdicts: Mapping[Criterion, Verdict], standing: Standing = Standing.DECIDED, why: str = "") -> Judgement:
    """The judgement of these verdicts."""
    return Judgement(verdicts, round(overall({c: v.score for c, v in verdicts.items()}), 2), standing, why)


def unjudged(why: str) -> Judgement:
    """No verdict could be had."""
    return Judgement({}, None, Standing.UNJUDGED, why)


def estimated(judgement: Judgement, why: str) -> Judgement:
    """The judgement of an answer that nothing settles: its scores are a guess, and too low to approve by themselves."""
    verdicts = {c: Verdict(min(v.score, UNDECIDED_AT_MOST), v.reason) for c, v in judgement.verdicts.items()}
    return judged(verdicts, Standing.UNDECIDED, why)


def failed(judgement: Judgement, why: str) -> Judgement:
    """The judgement of an answer that is wrong for sure, however much it has in common with the right one."""
    verdicts = {
        criterion: Verdict(min(v.score, 0.0 if criterion is Criterion.ACCURACY else VETOED_AT_MOST), v.reason)
        for criterion, v in judgement.verdicts.items()
    }
    return judged(verdicts, why=why)


def vetoed(judgement: Judgement, broken: Mapping[Criterion, tuple[str, ...]]) -> Judgement:
    """The judgement of an answer that breaks these must-rules (rule texts by criterion): it fails, and that is decided.

    The broken rule's criterion falls to 0 and every other one to at most `VETOED_AT_MOST`, so that what else is right
    cannot make up for it. Without a broken rule the judgement stays as it is.
    """
    rules = tuple(rule for of_it in broken.values() for rule in of_it)
    if not rules or judgement.overall is None:
        return judgement
    verdicts = {
        criterion: Verdict(0.0, f"breaks {'; '.join(broken[criterion])}; {verdict.reason}")
        if criterion in broken
        else Verdict(min(verdict.score, VETOED_AT_MOST), f"{verdict.reason}; at most 4, since a must-rule is broken")
        for criterion, verdict in judgement.verdicts.items()
    }
    settled = judged(verdicts, why=f"breaks {'; '.join(rules)}")
    return Judgement(settled.verdicts, settled.overall, Standing.DECIDED, settled.why, rules)
