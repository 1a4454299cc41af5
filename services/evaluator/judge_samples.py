"""The samples of an evaluation that have no result yet: answered, judged and stored, several at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from services.evaluator import domain, store
from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.domain import EvaluationFailure, SampleResult
from services.evaluator.evaluation_run import EvaluationRun
from services.evaluator.generation import forget, generate
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.judge import Finding
from services.evaluator.judging.ledger import StoredLedger
from services.evaluator.metrics import SAMPLES
from services.evaluator.openai_client import Answer, Unready

log = structlog.get_logger()


async def judge_missing(run: EvaluationRun) -> None:
    """Judge what has no result. Raises EvaluationFailure before Unready, and either before a passing fault."""
    async with run.work.transaction() as tx:
        done = {result.sample_id for result in await store.results(tx.connection, run.evaluation_id)}
    missing = [sample for sample in run.samples if sample.sample_id not in done]
    log.info("evaluation_continued", evaluation_id=run.evaluation_id, done=len(done), missing=len(missing))
    generated = await generate(run, missing)
    await each(missing, run.service.settings.concurrency, functools.partial(_judge_one, run, generated.answers))
    await forget(run, generated)


async def each(samples: Sequence[GoldenSample], at_once: int, one: Callable[[GoldenSample], Awaitable[None]]) -> None:
    """Call `one` with every sample, so many at once. Of several faults the most telling one is raised."""
    gate = asyncio.Semaphore(at_once)

    async def gated(sample: GoldenSample) -> None:
        async with gate:
            await one(sample)

    try:
        async with asyncio.TaskGroup() as group:
            for sample in samples:
                group.create_task(gated(sample))
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


async def _judge_one(run: EvaluationRun, answers: Mapping[str, Answer], sample: GoldenSample) -> None:
    """answers: those that were generated before, by sample id; any other is requested now."""
    evaluation = await run.stored()
    question = sample.question(run.version.context_use)
    models = run.service.parts.models_for(evaluation.domain)
    messages = sample.messages(run.version.context_use)
    answer = answers.get(sample.sample_id)
    if answer is None:
        answer = await models.answer(evaluation.adapter_id, messages, evaluation.max_tokens)
    served = domain.check_served(evaluation, answer.served)
    ledger = StoredLedger(run.evaluation_id, sample.sample_id, run.work.transaction, run.service.blobs)
    finding = await run.judge.judge(sample, question, answer.text, ledger)

    async def draw(number: int) -> str:
        heat = run.service.settings.code.temperature
        drawn = await models.answer(
            evaluation.adapter_id, messages, evaluation.max_tokens, temperature=heat, seed=number
        )
        if domain.check_served(evaluation, drawn.served) != served:
            raise EvaluationFailure(f"two different artifacts of {evaluation.adapter_id} answered")
        return drawn.text

    measured = await run.service.parts.tests.measure(sample, answer.text, draw)
    measured |= await run.service.parts.metrics.measure(sample, answer.text, models, evaluation.adapter_id)
    result = _result(sample, answer, finding, measured)
    async with run.work.transaction() as tx:
        if await store.pin_artifact(tx.connection, run.evaluation_id, served) != served:
            raise EvaluationFailure(f"two different artifacts of {evaluation.adapter_id} answered")
        await store.set_waiting(tx.connection, run.evaluation_id, waiting=False)
        await store.add_result(tx.connection, run.evaluation_id, result, dict(finding.evidence))
        await run.work.progress(tx)
    SAMPLES.labels(run.judge.description.name, str(finding.judgement.standing)).inc()


def _result(sample: GoldenSample, answer: Answer, finding: Finding, metrics: Mapping[str, Measured]) -> SampleResult:
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
        metrics=metrics,
    )
