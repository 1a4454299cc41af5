"""Dead letters: what could not be handled, why, and the way back."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from fleet_events.topology import DEAD_STREAM, row_of_subject
from fleet_kit.cloudevents import ONLY_FOR, Stored
from fleet_kit.dead_letter_writer import OUTBOX

__all__ = [
    "REPLAYED",
    "DeadLetter",
    "count",
    "event_headers",
    "list_dead",
    "mark_subject",
    "read_letter",
    "replay",
    "replay_headers",
    "show",
]

REPLAYED = "Lorafleet-Replayed-By"
"""Header of a mark: the letter that it belongs to was replayed by its service."""
_MARKS = "lorafleet.dlq.*.*.*.replayed"


@dataclass(frozen=True)
class DeadLetter:
    """An event that its consumer gave up, or that JetStream refused to store."""

    sequence: int
    place: str
    """Subject that it is stored under."""
    consumer: str
    """The durable that gave it up; `<service>-outbox` where no stream took it."""
    subject: str
    event_id: str
    origin: Stored
    """Where and when its stream had stored the event; sequence 0 where no stream took it."""
    reason: str
    time: str
    deliveries: int
    truncated: bool
    headers: Mapping[str, str]
    body: bytes


def mark_subject(place: str) -> str:
    """Where it is kept that the letter of this subject was replayed."""
    return f"{place}.replayed"


async def count(jetstream: JetStreamContext) -> int:
    """Letters that are kept, without marks."""
    state = (await jetstream.stream_info(DEAD_STREAM, subjects_filter=_MARKS)).state
    return state.messages - sum((state.subjects or {}).values())


async def list_dead(jetstream: JetStreamContext, consumer: str | None = None) -> AsyncIterator[DeadLetter]:
    """Dead letters, oldest first, of one durable or of all."""
    state = (await jetstream.stream_info(DEAD_STREAM)).state
    sequence = state.first_seq
    while state.messages and sequence <= state.last_seq:
        try:
            raw = await jetstream.get_msg(DEAD_STREAM, seq=sequence, next=True, subject=">", direct=True)
        except NotFoundError:
            return
        letter = read_letter(raw)
        if REPLAYED not in letter.headers and (consumer is None or letter.consumer == consumer):
            yield letter
        sequence = letter.sequence + 1


async def show(jetstream: JetStreamContext, sequence: int) -> DeadLetter:
    """One dead letter; raises LookupError."""
    try:
        letter = read_letter(await jetstream.get_msg(DEAD_STREAM, seq=sequence, direct=True))
    except NotFoundError as error:
        raise LookupError(f"there is no dead letter {sequence}; `lorafleet dlq list` shows them") from error
    if by := letter.headers.get(REPLAYED):
        raise LookupError(f"dead letter {sequence} was replayed by {by}")
    return letter


async def replay(jetstream: JetStreamContext, sequence: int) -> DeadLetter:
    """Publish the event again under its own id, then remove the dead letter.

    Only the consumer that gave it up handles it: others have handled the event, or have a dead letter of their own.
    An event that no stream had taken goes to all of its consumers.

    Raises:
        LookupError: no such dead letter.
        ValueError: its body was too large to be kept whole.
    """
    letter = await show(jetstream, sequence)
    if letter.truncated:
        raise ValueError(f"dead letter {sequence} was too large to be kept whole: the publisher has to send it again")
    headers = replay_headers(letter)
    if not letter.consumer.endswith(OUTBOX):
        headers[ONLY_FOR] = letter.consumer
    await jetstream.publish(letter.subject, letter.body, timeout=5, headers=headers)
    await jetstream.delete_msg(DEAD_STREAM, sequence)
    return letter


def event_headers(letter: DeadLetter) -> dict[str, str]:
    """The event's own headers, with its id."""
    own = {name: value for name, value in letter.headers.items() if not name.startswith(("Lorafleet-", "Nats-"))}
    return own | {"ce-id": letter.event_id}


def replay_headers(letter: DeadLetter) -> dict[str, str]:
    """With what the event is published again."""
    headers = event_headers(letter) | {"Nats-Msg-Id": f"{letter.event_id}:replay:{letter.sequence}"}
    row = row_of_subject(letter.subject)
    if row is not None and row.keep is not None:
        # As long as the first time: inbox rows are kept for that long, see `retention`.
        headers["Nats-TTL"] = f"{int(row.keep.total_seconds())}s"
    return headers


def read_letter(raw: RawStreamMsg) -> DeadLetter:
    """A message of the stream of dead letters."""
    headers = dict(raw.headers or {})
    found = {name.lower(): value for name, value in headers.items()}
    # Earlier releases did not write when the event was stored.
    stored = found.get("lorafleet-stored") or found.get("lorafleet-time")
    at = datetime.fromisoformat(stored) if stored else raw.time or datetime.now(UTC)
    return DeadLetter(
        sequence=raw.seq or 0,
        place=raw.subject or "",
        consumer=found.get("lorafleet-consumer", ""),
        subject=found.get("lorafleet-subject", ""),
        event_id=found.get("lorafleet-event-id")
        or found.get("ce-id")
        or f"sequence-{found.get('lorafleet-sequence', '')}",
        origin=Stored(int(found.get("lorafleet-sequence", "0")), at),
        reason=found.get("lorafleet-reason", ""),
        time=found.get("lorafleet-time", ""),
        deliveries=int(found.get("lorafleet-deliveries", "0")),
        truncated="lorafleet-truncated" in found,
        headers=headers,
        body=raw.data or b"",
    )
