"""A language model as judge: strict verdicts, requested again where there is none; a score is never made up."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import judgement, live_question, llm_question, llm_verdict
from services.evaluator.judging.calibration import UNCALIBRATED, Calibration
from services.evaluator.judging.criteria import Criterion, broken_musts
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.judge import Finding, Judge, JudgeDescription, with_tests
from services.evaluator.judging.judgement import VETOED_AT_MOST, Standing, Verdict, judged, unjudged
from services.evaluator.judging.ledger import Ledger
from services.evaluator.judging.llm_client import LLMClient
from services.evaluator.judging.llm_verdict import Met, ModelVerdict, read_verdict
from services.evaluator.judging.settings import JudgeSettings
from services.evaluator.judging.text import words

VERSION = "1"
UNMET_KEEPS = 0.5
"""Of a criterion's score where none of its demands is met."""


class LLMJudge:
    """Judges over one endpoint. With k samples, each criterion's median counts, and their spread is in the evidence."""

    def __init__(
        self,
        name: str,
        settings: JudgeSettings,
        endpoint: JudgeEndpoint,
        tests: CodeTests,
        rules_judge: Judge | None = None,
        *,
        without_reference: bool = False,
    ) -> None:
        """rules_judge decides first what rules settle (`rules_first`). without_reference: samples have no expected
        output, which the prompt states."""
        self._settings = settings
        self._client = LLMClient(name, settings, endpoint)
        self._tests = tests
        self._rules_judge = rules_judge
        self._name = name
        self._question = live_question if without_reference else llm_question

    @property
    def name(self) -> str:
        """With a digest of all that a verdict depends on beside the sample."""
        return f"{self._name}/{VERSION}+{self.description.fingerprint[:12]}"

    @property
    def description(self) -> JudgeDescription:
        details = {name: json.dumps(value) for name, value in sorted(self._settings.parameters.items())}
        details |= {
            "samples": str(self._settings.samples),
            "attempts": str(self._settings.attempts),
            "answers": self._settings.answers,
            "url": self._settings.url,
        }
        if self._rules_judge:
            details["rules_first"] = self._rules_judge.name
        return JudgeDescription(
            name=self._name,
            version=VERSION,
            model=self._settings.model,
            prompt_sha256=self._question.PROMPT_SHA256,
            parameters=details,
        )

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        return {self.name: UNCALIBRATED}

    async def judge(self, sample: GoldenSample, question: str, answer: str, ledger: Ledger) -> Finding:
        """Raises Unready and EvaluationFailure as the endpoint does. A sample without a verdict is unjudged."""
        if not words(answer):
            return Finding(judged(dict.fromkeys(Criterion, Verdict(0.0, "the answer is empty")), why="empty"), {})
        run = await self._tests.run(sample, answer)
        if run is not None and not run.passed:
            rest = judged(dict.fromkeys(Criterion, Verdict(VETOED_AT_MOST, "not judged, since the tests fail")))
            return Finding(with_tests(rest, run), {})
        if self._rules_judge:
            found = await self._rules_judge.judge(sample, question, answer, ledger)
            if found.judgement.standing is Standing.DECIDED:
                return found
        request = self._question.ask(sample, question, answer)
        got, faults = await self._client.ask_all([request], lambda _, text: read_verdict(text, request), ledger)
        verdicts = [verdict for verdict in got if verdict is not None]
        evidence = _evidence(verdicts, faults)
        if len(verdicts) * 2 <= self._settings.samples:
            return Finding(unjudged(f"{len(faults)} of {len(got)} verdicts are missing: {faults[-1]}"), evidence)
        broken = await asyncio.to_thread(broken_musts, sample.rules, answer)
        return Finding(judgement.vetoed(_median(verdicts), _with_demands(broken, verdicts)), evidence)


def recorded_settings(judging: Mapping[str, Any]) -> JudgeSettings | None:
    """The settings that a judge's description was made of, as an evaluation recorded it; None where it has none."""
    details = dict(judging.get("parameters") or {})
    if not judging.get("model") or "url" not in details:
        return None
    own = {name: details.pop(name) for name in ("samples", "attempts", "answers", "url")}
    rules_first = details.pop("rules_first", None) is not None
    parameters = {name: json.loads(value) for name, value in details.items()}
    return JudgeSettings(model=judging["model"], parameters=parameters, rules_first=rules_first, **own)


def _median(verdicts: Sequence[ModelVerdict]) -> judgement.Judgement:
    """Each criterion's median, with the reason of the verdict nearest to it. Unmet demands lower their criterion."""
    found: dict[Criterion, Verdict] = {}
    for criterion in Criterion:
        scores = [verdict.verdicts[criterion] for verdict in verdicts]
        middle = statistics.median(score.score for score in scores)
        nearest = min(scores, key=lambda score: abs(score.score - middle))
        found[criterion] = Verdict(float(middle), nearest.reason)
    for criterion, of_it in _by_criterion(_agreed(verdicts)).items():
        unmet = [met for met in of_it if not met.met]
        if unmet:
            kept = 1 - (1 - UNMET_KEEPS) * len(unmet) / len(of_it)
            details = "; ".join(f"does not meet {met.demand.text!r}: {met.reason}" for met in unmet)
            former = found[criterion]
            found[criterion] = Verdict(round(former.score * kept, 2), f"{details}; {former.reason}")
    return judged(found)


def _agreed(verdicts: Sequence[ModelVerdict]) -> list[Met]:
    """Each demand as most verdicts have it; a tie is not met."""
    agreed = []
    for votes in zip(*(verdict.demands for verdict in verdicts), strict=True):
        met = sum(vote.met for vote in votes) * 2 > len(votes)
        agreed.append(next(vote for vote in votes if vote.met is met))
    return agreed


def _by_criterion(demands: Sequence[Met]) -> dict[Criterion, list[Met]]:
    groups: dict[Criterion, list[Met]] = {}
    for met in demands:
        groups.setdefault(met.demand.criterion, []).append(met)
    return groups


def _with_demands(
    broken: Mapping[Criterion, tuple[str, ...]], verdicts: Sequence[ModelVerdict]
) -> dict[Criterion, tuple[str, ...]]:
    """The broken rules, and the demands beginning with `must` that are not met."""
    found = dict(broken)
    for met in _agreed(verdicts):
        if met.demand.must and not met.met:
            found[met.demand.criterion] = (*found.get(met.demand.criterion, ()), f"note: {met.demand.text}")
    return found


def _evidence(verdicts: Sequence[ModelVerdict], faults: Sequence[str]) -> dict[str, Any]:
    """For the report: every verdict's scores, their spread, and what the demands got."""
    scores = [{str(c): verdict.verdicts[c].score for c in Criterion} for verdict in verdicts]
    totals = [judged(verdict.verdicts).overall or 0.0 for verdict in verdicts]
    return {
        "verdicts": scores,
        "overall": totals,
        "spread": max(totals) - min(totals) if totals else None,
        "repaired": sum(verdict.repaired for verdict in verdicts),
        "missing": list(faults),
        "demands": [llm_verdict.dumped(met) for met in _agreed(verdicts)] if verdicts else [],
    }
