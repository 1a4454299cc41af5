"""HTTP in: a service's dead letters, and their replay."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from fleet_events.topology import ANSWERS, DATA, row_of_subject
from fleet_kit.auth import Caller, require
from fleet_kit.cloudevents import open_envelope
from fleet_kit.dead_letters import DeadLetter, event_headers
from fleet_kit.errors import NotYet, Problem, Refused
from fleet_kit.event_domain import domain_of
from fleet_kit.faults import is_transient
from fleet_kit.own_dead_letters import OwnDeadLetters, Replayed

__all__ = ["router"]

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])

SHOWN_BODY = 64 * 1024
"""Bytes of a body that are shown."""
ID = r"[A-Za-z0-9_-]+\.[0-9a-f]+-[0-9]+"


async def _own(request: Request) -> OwnDeadLetters:
    own: OwnDeadLetters = request.app.state.service.dead_letters
    return own


Own = Annotated[OwnDeadLetters, Depends(_own)]
Operator = Annotated[Caller, Depends(require("admin"))]
LetterId = Annotated[str, Path(pattern=rf"^{ID}$", max_length=200, description="`id` of the list")]


class DeadLetterView(BaseModel):
    """An event that was given up. `body`: its first 64 KiB as text; null of what people wrote and of keys and tokens.

    `domain` is empty where the event concerns none, or cannot be read: only a token of every domain finds it.
    """

    id: str
    consumer: str = Field(description="The durable that gave it up; `<service>-outbox` where no stream took it")
    type: str
    subject: str
    domain: str
    event_id: str
    time: str
    deliveries: int
    reason: str
    truncated: bool
    headers: dict[str, str]
    body: str | None


class DeadLetterList(BaseModel):
    """`earlier`: letters that an earlier release wrote; `lorafleet dlq` has these."""

    letters: list[DeadLetterView]
    more: bool
    earlier: int


class Replay(BaseModel):
    """`outcome`: done, duplicate (the event had been handled), published, or started: long work, not done yet."""

    outcome: str


@router.get("", summary="Events that this service gave up, newest first")
async def list_letters(caller: Operator, own: Own, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> DeadLetterList:
    found, more, earlier = await own.newest(limit)
    shown = [_view(own, letter) for letter in found]
    return DeadLetterList(letters=[one for one in shown if _may_see(caller, one)], more=more, earlier=earlier)


@router.get("/{letter_id}", summary="One of them")
async def show_letter(letter_id: LetterId, caller: Operator, own: Own) -> DeadLetterView:
    return _view(own, await _letter(letter_id, caller, own))


@router.post("/{letter_id}/replay", summary="Handle it once more, after its cause is gone")
async def replay_letter(letter_id: LetterId, caller: Operator, own: Own, response: Response) -> Replay:
    """The consumer that gave it up handles it, and nobody else; an event that it has handled already has no effect.

    409 where somebody has replayed it before, or it fails again: the reason says how.
    """
    letter = await _letter(letter_id, caller, own)
    if letter.truncated:
        detail = "it was too large to be kept whole: the publisher has to send it again"
        raise Problem(409, "Not kept whole", detail, field="letter_id")
    if own.is_long(letter):
        if not own.begin(letter, caller.subject):
            raise Problem(409, "Replayed already", "it is being handled right now", field="letter_id")
        response.status_code = 202
        return Replay(outcome="started")
    try:
        return Replay(outcome=await own.replay(letter, caller.subject))
    except NotYet as error:
        raise Problem(409, "Cannot be handled yet", str(error), retry_after=int(error.after) or 1) from error
    except (Refused, LookupError) as error:
        raise Problem(409, "Fails again", f"it stays a dead letter: {error}") from error
    except Exception as error:
        if is_transient(error):
            raise
        detail = f"it stays a dead letter: {type(error).__name__}: {str(error)[:1000]}"
        raise Problem(409, "Fails again", detail) from error


async def _letter(letter_id: str, caller: Caller, own: OwnDeadLetters) -> DeadLetter:
    try:
        found = await own.one(letter_id)
    except LookupError as error:
        raise Problem(404, "Not found", str(error), field="letter_id") from error
    if isinstance(found, Replayed):
        raise Problem(409, "Replayed already", f"{found.by} has replayed this dead letter", field="letter_id")
    if not _may_see(caller, _view(own, found)):
        raise Problem(404, "Not found", f"{own.service} has no dead letter {letter_id!r}", field="letter_id")
    return found


def _may_see(caller: Caller, letter: DeadLetterView) -> bool:
    return caller.reaches(letter.domain or "*")


def _view(own: OwnDeadLetters, letter: DeadLetter) -> DeadLetterView:
    row = row_of_subject(letter.subject)
    personal = row is None or row.stream in (DATA, ANSWERS) or row.area == "access"
    return DeadLetterView(
        id=own.id_of(letter),
        consumer=letter.consumer,
        type=row.event.__name__ if row else "",
        subject=letter.subject,
        domain=_domain(letter),
        event_id=letter.event_id,
        time=letter.time,
        deliveries=letter.deliveries,
        reason=letter.reason,
        truncated=letter.truncated,
        headers=event_headers(letter),
        body=None if personal else letter.body[:SHOWN_BODY].decode(errors="replace"),
    )


def _domain(letter: DeadLetter) -> str:
    try:
        return domain_of(open_envelope(letter.subject, event_headers(letter), letter.body, *letter.origin)[0])
    except Refused:
        return ""
