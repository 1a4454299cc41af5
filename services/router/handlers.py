"""Events that the router consumes."""

from fleet_events.v1 import (
    AdapterActivated,
    AdapterDeactivated,
    FeedbackRecorded,
    GenerationRecorded,
    SubjectErased,
    SubjectForgotten,
)
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction
from services.router import feedback, index
from services.router.parts import RouterService

handlers: Handlers[RouterService] = Handlers("router")


@handlers.on(AdapterActivated)
async def route_to(event: AdapterActivated, tx: Transaction, service: RouterService) -> None:
    await index.activate(tx.connection, service.parts.learning, event)


@handlers.on(AdapterDeactivated)
async def route_no_more(event: AdapterDeactivated, tx: Transaction, _service: RouterService) -> None:
    await index.deactivate(tx.connection, event)


@handlers.on(GenerationRecorded)
async def keep_routed(event: GenerationRecorded, tx: Transaction, service: RouterService) -> None:
    """Keep the vectors of what `auto` routed, for feedback on it."""
    await feedback.take_answer(tx.connection, service.parts.embedders, event, service.blobs)


@handlers.on(FeedbackRecorded)
async def learn_from_feedback(event: FeedbackRecorded, tx: Transaction, _service: RouterService) -> None:
    """Make a correction of what was routed wrongly."""
    if event.routed_wrongly:
        await feedback.take_feedback(tx.connection, event)


@handlers.on(SubjectForgotten)
async def forget_subject(event: SubjectForgotten, tx: Transaction, _service: RouterService) -> None:
    """Delete what a person's answers and feedback left here, and take nothing about them any more."""
    deleted = await feedback.forget(tx.connection, event.generation_ids)
    erased = SubjectErased(erasure_id=event.erasure_id, service="router", deleted=deleted, part=event.part)
    await tx.emit(erased, entity=event.erasure_id)
