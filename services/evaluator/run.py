"""One evaluation from its event to its score: open, judge what is missing, finish. Restartable at any point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import structlog

from fleet_events.v1 import EvaluationFailed, RegressionDetected
from fleet_kit.blobs import Blobs
from fleet_kit.errors import NotYet
from fleet_kit.transaction import Transaction
from services.evaluator import domain, incumbent, store
from services.evaluator.domain import Evaluation, EvaluationFailure, GoldenVersion, SampleResult
from services.evaluator.golden import sets as golden_sets
from services.evaluator.golden import store as golden_store
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import store as judge_store
from services.evaluator.judging.judge import Finding, Judge
from services.evaluator.judging.ledger import StoredLedger
from services.evaluator.metrics import SAMPLES
from services.evaluator.openai_client import Answer, OpenAIClient, Unready
from services.evaluator.result import comparison_event, report_content, scored_event, shown_comparison
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.work import Held

log = structlog.get_logger()


@dataclass(frozen=True)
class Bench:
    """What an evaluation needs around it."""

    settings: EvaluatorSettings
    models_for: Callable[[str], OpenAIClient]
    """Asks inference for this domain alone, whatever the evaluator's own token reaches."""
    judge_for: Callable[[Evaluation, str], Judge]
    """The judge of this evaluation with the golden data set of this id."""
    blobs: Blobs


async def evaluate(evaluation_id: str, work: Held, bench: Bench) -> None:
    """Take the stored evaluation to its end and say so exactly once.

    Raises NotYet while inference cannot serve the adapter; faults of the surroundings pass through. Whatever was
    judged before stays judged.
    """
    evaluation = await _stored(work, evaluation_id)
    if evaluation.over:
        async with work.finish():
            return
    try:
        async with work.transaction() as tx:
            version, sha256 = await golden_sets.freeze_for(tx.connection, evaluation.domain, _reference(evaluation))
            samples = await golden_store.samples(tx.connection, version.dataset_id, version.version)
            judge = bench.judge_for(evaluation, version.dataset_id)
            await store.begin(
                tx.connection,
                evaluation_id,
                dataset_id=version.dataset_id,
                version=version.version,
                golden_sha256=sha256,
                total=len(samples),
                judge=judge.name,
            )
        begun = await _stored(work, evaluation_id)
        if begun.judge != judge.name:
            raise EvaluationFailure(
                f"began with judge {begun.judge}, which is {judge.name} by now: two judges make no score; "
                "judge it again"
            )
        await _judge_missing(evaluation_id, samples, version, work, bench, judge=judge)

        async def score(again: str) -> None:
            await _judge_missing(again, samples, version, work, bench, judge=judge)
            await _finish(again, samples, version, work, bench, judge=judge, last=work.transaction)

        await incumbent.judge_again(begun, work, bench.settings, score=score, say_failed=_say_failed)
        await _finish(evaluation_id, samples, version, work, bench, judge=judge, last=work.finish)
    except EvaluationFailure as failure:
        await fail(evaluation_id, str(failure), work)
    except Unready as reason:
        await _wait(evaluation_id, str(reason), work, bench)


def _reference(evaluation: Evaluation) -> str:
    """The pinned version once the evaluation has begun, else what was asked for."""
    if evaluation.dataset_id is None:
        return evaluation.wanted_dataset
    return f"{evaluation.dataset_id}@{evaluation.version}"


async def _stored(work: Held, evaluation_id: str) -> Evaluation:
    async with work.transaction() as tx:
        found = await store.evaluation(tx.connection, evaluation_id)
    if found is None:
        raise LookupError(f"evaluation {evaluation_id} was not opened")
    return found


async def _judge_missing(
    evaluation_id: str, samples: list[GoldenSample], version: GoldenVersion, work: Held, bench: Bench, *, judge: Judge
) -> None:
    async with work.transaction() as tx:
        done = {result.sample_id for result in await store.results(tx.connection, evaluation_id)}
    missing = [sample for sample in samples if sample.sample_id not in done]
    log.info("evaluation goes on", evaluation_id=evaluation_id, done=len(done), missing=len(missing))
    gate = asyncio.Semaphore(bench.settings.concurrency)

    async def one(sample: GoldenSample) -> None:
        async with gate:
            await _judge_one(evaluation_id, sample, version, work, bench, judge=judge)

    try:
        async with asyncio.TaskGroup() as group:
            for sample in missing:
                group.create_task(one(sample))
    except BaseExceptionGroup as faults:
        raise _most_telling(faults) from None


def _most_telling(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what went wrong at once, what decides: a failure before a wait, either before a passing fault."""
    leaves = [leaf for fault in faults.exceptions for leaf in _leaves(fault)]
    for kind in (EvaluationFailure, Unready):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(fault: BaseException) -> list[BaseException]:
    if isinstance(fault, BaseExceptionGroup):
        return [leaf for inner in fault.exceptions for leaf in _leaves(inner)]
    return [fault]


async def _judge_one(
    evaluation_id: str, sample: GoldenSample, version: GoldenVersion, work: Held, bench: Bench, *, judge: Judge
) -> None:
    evaluation = await _stored(work, evaluation_id)
    question = sample.question(version.context_use)
    answer = await bench.models_for(evaluation.domain).answer(evaluation.adapter_id, question, evaluation.max_tokens)
    served = domain.check_served(evaluation, answer.served)
    ledger = StoredLedger(evaluation_id, sample.sample_id, work.transaction, bench.blobs)
    finding = await judge.judge(sample, question, answer.text, ledger)
    async with work.transaction() as tx:
        if await store.pin_artifact(tx.connection, evaluation_id, served) != served:
            raise EvaluationFailure(f"two different artifacts of {evaluation.adapter_id} answered")
        await store.set_waiting(tx.connection, evaluation_id, waiting=False)
        await store.add_result(tx.connection, evaluation_id, _result(sample, answer, finding), dict(finding.evidence))
        await work.progress(tx)
    SAMPLES.labels(judge.description.name, str(finding.judgement.standing)).inc()


def _result(sample: GoldenSample, answer: Answer, finding: Finding) -> SampleResult:
    return SampleResult(
        sample_id=sample.sample_id,
        answer=answer.text,
        generation_id=answer.generation_id,
        finish_reason=answer.finish_reason,
        overall=finding.judgement.overall,
        verdicts=finding.judgement.verdicts,
        standing=finding.judgement.standing,
        why=finding.judgement.why,
        vetoes=finding.judgement.vetoes,
    )


async def _finish(
    evaluation_id: str,
    samples: list[GoldenSample],
    version: GoldenVersion,
    work: Held,
    bench: Bench,
    *,
    judge: Judge,
    last: Callable[[], AbstractAsyncContextManager[Transaction]],
) -> None:
    """Store and publish the score; `last` opens the transaction that does."""
    async with work.transaction() as tx:
        evaluation = await store.evaluation(tx.connection, evaluation_id)
        if evaluation is None:
            raise LookupError(f"evaluation {evaluation_id} is gone")
        results = await store.results(tx.connection, evaluation_id)
        rows = await store.result_rows(tx.connection, evaluation_id)
        rival = await store.rival(tx.connection, evaluation)
        rival_evaluation = await store.evaluation(tx.connection, rival) if rival else None
        rival_results = await store.results(tx.connection, rival) if rival else []
        submission = 1 if evaluation.compares_for else await store.submission(tx.connection, evaluation)
        spent = await judge_store.spent(tx.connection, evaluation_id)
        exchanges = await judge_store.exchanges(tx.connection, evaluation_id)
    difficulties = {sample.sample_id: sample.difficulty for sample in samples}
    summary = domain.summarise(results, difficulties, evaluation.pass_threshold, submission)
    # Ten thousand draws take a moment; the event loop serves others meanwhile.
    comparison = await asyncio.to_thread(domain.compare, results, rival_results) if rival_evaluation else None
    shown = shown_comparison(comparison, rival_evaluation)
    judging = {**asdict(judge.description), "spent": asdict(spent), "exchanges": exchanges}
    content = report_content(evaluation, version, summary, shown, [dict(row) for row in rows], judging=judging)
    report = await bench.blobs.put("reports", content, content_type="application/json")
    async with last() as tx:
        await store.finish_scored(
            tx.connection,
            evaluation_id,
            summary=asdict(summary) | {"judging": asdict(judge.description) | asdict(spent)},
            comparison=shown,
            report=report.model_dump(mode="json"),
        )
        told = comparison_event(comparison, rival_evaluation)
        regression = bool(comparison and comparison.regression)
        scored = scored_event(evaluation, summary, told, report, regression=regression, judge=judge.description)
        await tx.emit(scored, evaluation.adapter_id)
        if comparison and told and comparison.regression:
            await tx.emit(
                RegressionDetected(
                    evaluation_id=evaluation_id,
                    adapter_id=evaluation.adapter_id,
                    domain=evaluation.domain,
                    compared_with=told.compared_with,
                    difference=told.difference,
                    ci_low=told.ci_low,
                    ci_high=told.ci_high,
                    criteria=comparison.fallen,
                ),
                evaluation.adapter_id,
            )
    log.info("evaluation scored", evaluation_id=evaluation_id, score=summary.score.value, samples=summary.samples)


async def fail(evaluation_id: str, reason: str, work: Held) -> None:
    """End the evaluation as failed and publish why."""
    async with work.finish() as tx:
        await _say_failed(tx, evaluation_id, reason)


async def _say_failed(tx: Transaction, evaluation_id: str, reason: str) -> None:
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
    log.warning("evaluation failed", evaluation_id=evaluation_id, reason=reason)


async def _wait(evaluation_id: str, reason: str, work: Held, bench: Bench) -> None:
    """Try again later, for a bounded time: an adapter that never loads has failed."""
    async with work.transaction() as tx:
        await store.set_waiting(tx.connection, evaluation_id, waiting=True)
    evaluation = await _stored(work, evaluation_id)
    limit = bench.settings.ready_seconds
    if domain.waited_out(evaluation, datetime.now(UTC), timedelta(seconds=limit)):
        await fail(evaluation_id, f"inference could not serve it within {limit:g} s: {reason}", work)
        return
    raise NotYet(reason, after=bench.settings.retry_seconds)
