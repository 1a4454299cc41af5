"""POST /v1/feedback: what people think of answers, as FeedbackRecorded."""

from fastapi import APIRouter, Request, Response

from fleet_events.v1 import FeedbackRecorded, RecordAnswers
from fleet_kit.auth import Caller
from personal_data import masked
from services.inference.errors import BadRequest, Busy, NotFound
from services.inference.generation_ids import GenerationIds, unknown_generation
from services.inference.http.access import Judges, Parts, ThisService
from services.inference.http.feedback_body import FeedbackAccepted, FeedbackRequest
from services.inference.parts import InferenceParts
from services.inference.recording.recorder import AWAY
from services.inference.resolution import reaches

router = APIRouter()


@router.post("/v1/feedback", status_code=202, response_model=FeedbackAccepted)
async def feedback(
    body: FeedbackRequest, request: Request, caller: Judges, parts: Parts, service: ThisService
) -> FeedbackAccepted | Response:
    """What somebody thinks of an answer: becomes FeedbackRecorded, acknowledged by the bus before this returns.

    An answer that waits for feedback to be recorded is published before it; where another replica holds it, the request
    goes there.
    """
    generation_id, others = _answers(body, parts.generator.ids)
    adapter_id, domain = _of(generation_id, caller, parts)
    _reach_family(body.right_family, caller, parts)
    domains = {_of(one, caller, parts)[1] for one in others} - {""}
    # An answer of the base model beside an adapter's is of the adapter's domain, which the caller was seen to reach.
    domain = domain or next(iter(sorted(domains)), "")
    if (elsewhere := await _at_its_author(request, generation_id, domain, parts)) is not None:
        return elsewhere
    given = FeedbackRecorded(
        generation_id=generation_id, adapter_id=adapter_id, domain=domain, by=caller.subject, subject=body.subject or ""
    )
    # Rating, correction and comment once, for any number of answers that it is better than.
    first = given.model_copy(update=_opinion(body))
    events = [
        (given if at else first).model_copy(update={"preferred_over": one}) for at, one in enumerate(others or [""])
    ]
    try:
        for one in (generation_id, *others):
            await parts.recorder.rated(one)
        for event in events:
            await service.publish(event, adapter_id or generation_id)
    except ValueError as error:
        raise BadRequest(f"too long for an event: {error}", code="invalid_value", param="correction") from error
    except AWAY as error:
        raise Busy("the event bus is unavailable; please retry.", code="bus_unavailable", retry_after=2) from error
    return FeedbackAccepted(
        generation_id=generation_id, adapter_id=adapter_id or None, rating=body.rating, preferred_over=others
    )


def _opinion(body: FeedbackRequest) -> dict[str, object]:
    """Of one answer by itself; personal data that has a form does not leave the process."""
    correction = masked(body.correction)[0] if body.correction else ""
    return {
        "rating": body.rating or 0,
        "comment": body.comment,
        "correction": correction,
        "routed_wrongly": body.routed_wrongly,
        "right_family": body.right_family or "",
    }


def _answers(body: FeedbackRequest, ids: GenerationIds) -> tuple[str, list[str]]:
    """The answer that the feedback is on, and those that it is better than."""
    if body.comparison_id is None:
        return body.generation_id or "", [body.preferred_over] if body.preferred_over else []
    compared = ids.compared(body.comparison_id)
    if isinstance(body.preferred, int) and body.preferred < len(compared):
        preferred = compared[body.preferred]
    elif body.preferred in compared:
        preferred = str(body.preferred)
    else:
        raise BadRequest(
            f"preferred is {body.preferred!r}, expected the index (below {len(compared)}) or the generation_id of a "
            "choice of this comparison.",
            code="invalid_value",
            param="preferred",
        )
    return preferred, [one for one in compared if one != preferred]


def _of(generation_id: str, caller: Caller, parts: InferenceParts) -> tuple[str, str]:
    """Adapter and domain of an answer, each empty for the base model; raises `NotFound` beyond the caller's domains."""
    ids = parts.generator.ids
    adapter_id = ids.adapter_id(generation_id)
    record = parts.projection.catalogue.records.get(adapter_id)
    domain = record.domain if record else ids.base_domain(generation_id)
    if (adapter_id or domain) and not reaches(caller, domain):
        raise unknown_generation(generation_id)
    return adapter_id, domain


def _reach_family(family: str | None, caller: Caller, parts: InferenceParts) -> None:
    """Raises `NotFound` where no adapter of the family is active, or only beyond the caller's domains."""
    active = parts.projection.catalogue.active.get(family) if family else None
    if family and (active is None or not reaches(caller, active.domain)):
        raise NotFound(
            f"no active family {family!r}, or you have no access to it; see GET /v1/models.",
            code="model_not_found",
            param="right_family",
        )


async def _at_its_author(request: Request, generation_id: str, domain: str, parts: InferenceParts) -> Response | None:
    """The response of the replica that holds the answer until it gets feedback; None where that is not another one."""
    waits = parts.projection.consents.of(domain).record_answers is RecordAnswers.RATED
    if not waits or parts.recorder.holds(generation_id):
        return None
    return await parts.forwarding.to_author(request, parts.generator.ids.author(generation_id))
