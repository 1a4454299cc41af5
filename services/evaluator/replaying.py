"""An evaluation's verdicts made once more, sample by sample, from what is kept of it. Nothing stored is changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet_kit.blobs import BlobRef, Blobs
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from fleet_kit.tasks import end
from services.evaluator import store
from services.evaluator.domain import Evaluation, EvaluationFailure, GoldenVersion, SampleResult
from services.evaluator.golden import sets as golden_sets
from services.evaluator.golden import store as golden_store
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import pair_store
from services.evaluator.judging import store as judge_store
from services.evaluator.judging.judge import Judge
from services.evaluator.judging.judgement import Judgement
from services.evaluator.judging.judges import name_of
from services.evaluator.judging.pair_store import StoredPair
from services.evaluator.judging.panel_pairs import PairJudges
from services.evaluator.judging.replay import (
    AgainLedger,
    Bill,
    Kept,
    NotReplayable,
    RecordedLedger,
    RecordedReference,
    lacks_answers,
)
from services.evaluator.openai_client import Unready
from services.evaluator.parts import EvaluatorService


@dataclass(frozen=True)
class Replayed:
    """One sample's verdict beside the recorded one; None, with the reason, where it cannot be made. `pairs`: outcomes
    of its pair of answers, recorded and replayed, where it was compared."""

    recorded: SampleResult
    replayed: Judgement | None
    missing: str
    pairs: tuple[str, str] | None = None

    @property
    def agrees(self) -> bool:
        """Same standing, scores and broken must-rules, and the same outcome of the pair."""
        was, now = self.recorded, self.replayed
        return (
            now is not None
            and (was.standing, was.overall, was.vetoes) == (now.standing, now.overall, now.vetoes)
            and {c: v.score for c, v in was.verdicts.items()} == {c: v.score for c, v in now.verdicts.items()}
            and (self.pairs is None or self.pairs[0] == self.pairs[1])
        )


@dataclass(frozen=True)
class _Evaluated:
    """What is stored of an evaluation."""

    version: GoldenVersion
    samples: Mapping[str, GoldenSample]
    results: Sequence[SampleResult]
    evidence: Mapping[str, Mapping[str, Any]]
    kept: Mapping[str, Kept]
    pairs: Mapping[str, StoredPair]
    rival_answers: Mapping[str, str]


class Replay:
    """The replay of an evaluation, of all samples or of one; with `bill` its requests are sent again."""

    def __init__(
        self, judge: Judge, comparing: PairJudges | None, stored: _Evaluated, blobs: Blobs, bill: Bill | None
    ) -> None:
        self.judge = judge
        self.bill = bill
        self._comparing = comparing
        self._stored = stored
        self._blobs = blobs

    @property
    def samples(self) -> int:
        return len(self._stored.results)

    @property
    def requests(self) -> int:
        """That are recorded of these samples."""
        return sum(len(self._stored.kept.get(result.sample_id, {})) for result in self._stored.results)

    async def run(self, at_once: int) -> AsyncGenerator[Replayed]:
        """Every sample's replayed verdict in the order of the results."""
        gate = asyncio.Semaphore(at_once)

        async def gated(result: SampleResult) -> Replayed:
            async with gate:
                return await self._one(result)

        tasks = [asyncio.create_task(gated(result)) for result in self._stored.results]
        try:
            for task in tasks:
                yield await task
        finally:
            await end(*tasks)

    async def _one(self, result: SampleResult) -> Replayed:
        sample = self._stored.samples.get(result.sample_id)
        if sample is None:
            return Replayed(result, None, "its golden sample is not kept any more")
        question = sample.question(self._stored.version.context_use)
        ledger = self._ledger(result.sample_id, unanswered=lacks_answers(self._stored.evidence[result.sample_id]))
        try:
            finding = await self.judge.judge(sample, question, result.answer, ledger)
            pairs = await self._pairs(sample, question, result.answer)
        except (NotReplayable, EvaluationFailure, Unready) as reason:
            return Replayed(result, None, str(reason))
        return Replayed(result, finding.judgement, "", pairs)

    async def _pairs(self, sample: GoldenSample, question: str, answer: str) -> tuple[str, str] | None:
        """Recorded and replayed outcome, "none" without a verdict; None where no pair was compared."""
        was, rival = self._stored.pairs.get(sample.sample_id), self._stored.rival_answers.get(sample.sample_id)
        if was is None:
            return None
        if rival is None or self._comparing is None:
            raise NotReplayable("the other answer of its pair, or the judge that compared them, is not there any more")
        ledger = self._ledger(sample.sample_id, unanswered=was.pair is None)
        found = await self._comparing.compare(sample, question, answer, rival, ledger)
        recorded, replayed = (str(pair.outcome) if pair else "none" for pair in (was.pair, found.pair))
        return recorded, replayed

    def _ledger(self, sample_id: str, *, unanswered: bool) -> RecordedLedger:
        kept = self._stored.kept.get(sample_id, {})
        if self.bill is None:
            return RecordedLedger(kept, self._blobs, unanswered=unanswered)
        return AgainLedger(kept, self._blobs, self.bill, unanswered=unanswered)


async def prepare(service: EvaluatorService, evaluation_id: str, sample_id: str, *, again: bool) -> Replay:
    """The replay of a visible evaluation; `sample_id` "" is all of its samples.

    Raises Problem: 404 for a sample without a result, 409 where nothing is kept, or no judge is there to replay with.
    """
    async with service.db.acquire() as connection:
        row = await store.evaluation_row(connection, evaluation_id)
        evaluation = await store.evaluation(connection, evaluation_id)
        if row is None or evaluation is None:
            raise Problem(404, "Evaluation not found", f"no evaluation {evaluation_id!r}", field="evaluation_id")
        if evaluation.dataset_id is None:
            raise Problem(409, "Nothing to replay", f"evaluation {evaluation_id!r} has judged nothing")
        stored = await _stored(connection, evaluation, sample_id, row["preference"] or {})
        judging = (row["summary"] or {}).get("judging") or {}
        parts = service.parts
        reference = RecordedReference(stored.evidence, parts.tests)
        judge = (
            await parts.judges.again(connection, evaluation, reference)
            if again
            else await parts.judges.replaying(connection, evaluation, judging, reference)
        )
        if judge is None:
            detail = f"the settings have no judge that is {evaluation.judge}; set it as it was, in LORAFLEET_JUDGES"
            raise Problem(409, "Judge not there", detail)
        comparing = await parts.judges.comparing(connection, evaluation, name_of(evaluation))
    return Replay(judge, comparing, stored, service.blobs, Bill() if again else None)


async def _stored(
    connection: Connection, evaluation: Evaluation, sample_id: str, preference: Mapping[str, Any]
) -> _Evaluated:
    results = [
        result
        for result in await store.results(connection, evaluation.evaluation_id)
        if sample_id in ("", result.sample_id)
    ]
    if not results:
        detail = f"evaluation {evaluation.evaluation_id!r} has no judged answer {sample_id}".rstrip()
        raise Problem(404, "Sample not found", detail, field="sample_id")
    dataset_id, version = evaluation.dataset_id or "", evaluation.version or ""
    rows = await store.result_evidence(connection, evaluation.evaluation_id)
    kept: dict[str, dict[str, tuple[BlobRef, BlobRef]]] = {}
    for one in await judge_store.exchanges(connection, evaluation.evaluation_id):
        sent, answer = BlobRef.model_validate(one["request"]), BlobRef.model_validate(one["answer"])
        kept.setdefault(str(one["sample_id"]), {})[sent.sha256] = (sent, answer)
    rival = str(preference.get("evaluation_id", ""))
    return _Evaluated(
        version=await golden_sets.get(connection, dataset_id, version),
        samples={one.sample_id: one for one in await golden_store.samples(connection, dataset_id, version)},
        results=results,
        evidence=rows,
        kept=kept,
        pairs={one.sample_id: one for one in await pair_store.pairs(connection, evaluation.evaluation_id, rival)},
        rival_answers={one.sample_id: one.answer for one in await store.results(connection, rival)} if rival else {},
    )
