"""The pairs of a version's and its rival's answers that have no verdict yet: compared and stored, several at once."""

from __future__ import annotations

from services.evaluator import store
from services.evaluator.evaluation_run import EvaluationRun
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judge_samples import each
from services.evaluator.judging import pair_store
from services.evaluator.judging.ledger import StoredLedger
from services.evaluator.judging.pair_store import StoredPair


async def compare_missing(run: EvaluationRun) -> None:
    """Compare what has no verdict, where the judge compares pairs and there is a version to compare with."""
    evaluation = await run.stored()
    async with run.work.transaction() as tx:
        judge = await run.service.parts.judges.pairwise(tx.connection, evaluation, run.version.dataset_id)
        if judge is None:
            return
        rival = await store.rival(tx.connection, evaluation)
        if rival is None:
            return
        new = {result.sample_id: result.answer for result in await store.results(tx.connection, run.evaluation_id)}
        old = {result.sample_id: result.answer for result in await store.results(tx.connection, rival)}
        done = {stored.sample_id for stored in await pair_store.pairs(tx.connection, run.evaluation_id, rival)}
    missing = [sample for sample in run.samples if sample.sample_id in (new.keys() & old.keys()) - done]

    async def one(sample: GoldenSample) -> None:
        ledger = StoredLedger(run.evaluation_id, sample.sample_id, run.work.transaction, run.service.blobs)
        question = sample.question(run.version.context_use)
        found = await judge.compare(sample, question, new[sample.sample_id], old[sample.sample_id], ledger)
        stored = StoredPair(sample.sample_id, found.pair, found.why)
        async with run.work.transaction() as tx:
            await pair_store.add_pair(tx.connection, run.evaluation_id, rival, stored, found.members)
            await run.work.progress(tx)

    await each(missing, run.service.settings.concurrency, one)
