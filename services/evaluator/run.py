"""One evaluation from its event to its score: open, judge what is missing, finish. Restartable at any point."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from fleet_events.v1 import EvaluationFailed
from fleet_kit.errors import NotYet
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.evaluator import domain, incumbent, store
from services.evaluator.domain import Evaluation, EvaluationFailure
from services.evaluator.evaluation_run import EvaluationRun, stored
from services.evaluator.golden import sets as golden_sets
from services.evaluator.golden import store as golden_store
from services.evaluator.judge_pairs import compare_missing
from services.evaluator.judge_samples import judge_missing
from services.evaluator.openai_client import Unready
from services.evaluator.parts import EvaluatorService
from services.evaluator.score import score

log = structlog.get_logger()


async def evaluate(evaluation_id: str, work: LeasedTask, service: EvaluatorService) -> None:
    """Take the stored evaluation to its end and publish that exactly once.

    Raises NotYet while inference cannot serve the adapter; faults of the surroundings pass through. What was
    judged before stays judged.
    """
    evaluation = await stored(work, evaluation_id)
    if evaluation.over:
        async with work.finish():
            return
    try:
        run = await _begin(evaluation, work, service)
        await judge_missing(run)

        async def score_incumbent(again: str) -> None:
            rival = replace(run, evaluation_id=again)
            await judge_missing(rival)
            await score(rival, last=work.transaction)

        await incumbent.judge_again(
            await run.stored(), work, service.settings, score=score_incumbent, publish_failure=_publish_failure
        )
        await compare_missing(run)
        await score(run, last=work.finish)
    except EvaluationFailure as failure:
        await fail(evaluation_id, str(failure), work)
    except Unready as reason:
        await _wait(evaluation_id, str(reason), work, service)


async def _begin(evaluation: Evaluation, work: LeasedTask, service: EvaluatorService) -> EvaluationRun:
    """Pin golden data set and judge; raises EvaluationFailure where another judge has begun."""
    async with work.transaction() as tx:
        version, sha256 = await golden_sets.freeze_for(tx.connection, evaluation.domain, _reference(evaluation))
        samples = await golden_store.samples(tx.connection, version.dataset_id, version.version)
        if any(sample.tests for sample in samples) and (refusal := service.parts.tests.refusal()):
            raise EvaluationFailure(refusal)
        judge = await service.parts.judges.judge(tx.connection, evaluation, version.dataset_id)
        await store.begin(
            tx.connection,
            evaluation.evaluation_id,
            dataset_id=version.dataset_id,
            version=version.version,
            golden_sha256=sha256,
            total=len(samples),
            judge=judge.name,
        )
    begun = await stored(work, evaluation.evaluation_id)
    if begun.judge != judge.name:
        raise EvaluationFailure(
            f"began with judge {begun.judge}, which is {judge.name} by now: two judges make no score; judge it again"
        )
    return EvaluationRun(evaluation.evaluation_id, samples, version, judge, work, service)


def _reference(evaluation: Evaluation) -> str:
    """The pinned version once the evaluation has begun, else the requested one."""
    if evaluation.dataset_id is None:
        return evaluation.wanted_dataset
    return f"{evaluation.dataset_id}@{evaluation.version}"


async def fail(evaluation_id: str, reason: str, work: LeasedTask) -> None:
    """End the evaluation as failed and publish why."""
    async with work.finish() as tx:
        await _publish_failure(tx, evaluation_id, reason)


async def _publish_failure(tx: Transaction, evaluation_id: str, reason: str) -> None:
    evaluation = await store.evaluation(tx.connection, evaluation_id)
    if evaluation is None:
        raise LookupError(f"evaluation {evaluation_id} is gone")
    await store.finish_failed(tx.connection, evaluation_id, reason)
    await tx.emit(
        EvaluationFailed(
            evaluation_id=evaluation_id, adapter_id=evaluation.adapter_id, domain=evaluation.domain, reason=reason
        ),
        evaluation.adapter_id,
    )
    log.warning("evaluation_failed", evaluation_id=evaluation_id, reason=reason)


async def _wait(evaluation_id: str, reason: str, work: LeasedTask, service: EvaluatorService) -> None:
    """Try again later, for a bounded time: an adapter that never loads has failed."""
    async with work.transaction() as tx:
        await store.set_waiting(tx.connection, evaluation_id, waiting=True)
    evaluation = await stored(work, evaluation_id)
    limit = service.settings.ready_seconds
    if domain.waited_out(evaluation, datetime.now(UTC), timedelta(seconds=limit)):
        await fail(evaluation_id, f"inference could not serve it within {limit:g} s: {reason}", work)
        return
    raise NotYet(reason, after=service.settings.retry_seconds)
