"""Events in: a registered version is judged, and judged again on request."""

from __future__ import annotations

from datetime import UTC, datetime

from fleet_events.v1 import (
    Adapter,
    AdapterActivated,
    AdapterRegistered,
    AdapterReleased,
    EvaluationRequested,
    GenerationRecorded,
)
from fleet_kit.cloudevents import Envelope
from fleet_kit.handlers import Handlers
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.evaluator import retention_store, store
from services.evaluator.live import answer as live
from services.evaluator.open_evaluation import open_requested
from services.evaluator.parts import EvaluatorService
from services.evaluator.run import evaluate, fail

handlers: Handlers[EvaluatorService] = Handlers("evaluator")


def _of_registered(_event: AdapterRegistered, envelope: Envelope) -> str:
    return f"evaluation:{envelope.name}"


def _of_requested(event: EvaluationRequested, envelope: Envelope) -> str:
    return f"evaluation:{event.evaluation_id or envelope.name}"


async def _give_up_registered(
    _event: AdapterRegistered, reason: str, work: LeasedTask, _service: EvaluatorService
) -> None:
    await fail(work.envelope.name, reason, work)


async def _give_up_requested(
    event: EvaluationRequested, reason: str, work: LeasedTask, _service: EvaluatorService
) -> None:
    await fail(event.evaluation_id or work.envelope.name, reason, work)


@handlers.long(AdapterRegistered, lease=_of_registered, give_up=_give_up_registered)
async def judge_registered(event: AdapterRegistered, work: LeasedTask, service: EvaluatorService) -> None:
    """Judge a new version with the golden data set it names, else its domain's newest."""
    adapter = event.adapter
    async with work.transaction() as tx:
        await _know(tx, adapter)
        await open_requested(
            tx.connection,
            evaluation_id=work.envelope.name,
            adapter_id=adapter.adapter_id,
            domain=adapter.domain,
            golden=event.golden_dataset_id,
            requested_by=work.envelope.source,
            settings=service.settings,
        )
    await evaluate(work.envelope.name, work, service)


@handlers.long(EvaluationRequested, lease=_of_requested, give_up=_give_up_requested)
async def judge_requested(event: EvaluationRequested, work: LeasedTask, service: EvaluatorService) -> None:
    """Judge a version again."""
    evaluation_id = event.evaluation_id or work.envelope.name
    async with work.transaction() as tx:
        await open_requested(
            tx.connection,
            evaluation_id=evaluation_id,
            adapter_id=event.adapter_id,
            domain=event.domain,
            golden=event.golden_dataset_id,
            requested_by=event.requested_by or work.envelope.source,
            settings=service.settings,
        )
    await evaluate(evaluation_id, work, service)


def _of_answer(event: GenerationRecorded, _envelope: Envelope) -> str:
    return f"answer:{event.generation_id}"


async def _give_up_answer(event: GenerationRecorded, reason: str, work: LeasedTask, _service: EvaluatorService) -> None:
    if part := live.drawn(event):
        await live.publish(event, part, work, live.AnswerJudgement(None, reason))
        return
    await work.pass_over()


@handlers.long(GenerationRecorded, lease=_of_answer, give_up=_give_up_answer)
async def judge_live(event: GenerationRecorded, work: LeasedTask, service: EvaluatorService) -> None:
    """Judge an answer of a rollout, where it belongs to the sample."""
    if part := live.drawn(event):
        await live.judge(event, part, work, service)
        return
    await work.pass_over()


@handlers.on(AdapterReleased)
async def let_go(event: AdapterReleased, tx: Transaction, service: EvaluatorService) -> None:  # noqa: ARG001
    """Keep that what was judged of the version may be let go; a collection does so where its domain's rule has it."""
    await retention_store.add_released(tx.connection, event.adapter_id)


@handlers.on(AdapterActivated)
async def remember_active(event: AdapterActivated, tx: Transaction, _service: EvaluatorService) -> None:
    """The version that a family's next one is compared with."""
    await _know(tx, event.adapter)
    now = datetime.now(UTC)
    at = min(tx.cause.time, now) if tx.cause else now
    await store.know_active(tx.connection, event.adapter.family, event.adapter.adapter_id, event.revision, at)


async def _know(tx: Transaction, adapter: Adapter) -> None:
    await store.know_candidate(
        tx.connection,
        adapter_id=adapter.adapter_id,
        family=adapter.family,
        domain=adapter.domain,
        artifact_sha256=adapter.artifact.blob.sha256,
        base_model=adapter.base_model.name,
        base_revision=adapter.base_model.revision,
    )
