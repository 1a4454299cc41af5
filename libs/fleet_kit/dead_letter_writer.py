"""Writes dead letters: of events that a consumer gives up, and of events that JetStream refuses to store.

A consumer's are written beside the handling of other events, so that a poison event costs less than a good one.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import PubAck

from fleet_kit import metrics
from fleet_kit.cloudevents import Outgoing, Stored, read_envelope, substitute_id
from fleet_kit.errors import Refused
from fleet_kit.faults import describe
from fleet_kit.publishing import TIMEOUT, room_beside

__all__ = ["OUTBOX", "DeadLetterWriter", "dead_subject", "store_refused"]

log = structlog.get_logger()

MAX_BODY = 900_000
MAX_REASON = 2000
MAX_HEADER = 1000
MAX_HEADERS = 40
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name, as clients send it (RFC 9110, section 5.6.2)."""
OUTBOX = "-outbox"
"""Ends the name, after the service's, under which dead letters of events stand that no stream has taken."""
IN_FLIGHT = 64
"""Dead letters that wait for their acknowledgement at once. Further ones hold up their consumers."""


def dead_subject(durable: str, token: str) -> str:
    """Subject of one letter, for example lorafleet.dlq.registry.training_completed.12-1796227200000000.

    A subject of its own, below its service's: the service can replace this letter, and read no other service's.
    """
    service, _, event = durable.partition("-")
    return f"lorafleet.dlq.{service}.{event}.{token}"


def _token(name: str | int, at: datetime) -> str:
    return f"{name}-{int(at.timestamp() * 1_000_000)}"


class DeadLetterWriter:
    """Stores a copy with its reason, then ends the original; without the copy's PubAck the original comes again."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream
        self._free = asyncio.Semaphore(IN_FLIGHT)
        self._writing: set[asyncio.Task[None]] = set()

    async def submit(self, message: Msg, durable: str, reason: str, retry_after: float) -> None:
        """Begin to store a message as a dead letter; returns once there is room for it.

        Args:
            message: the delivery, which is answered here.
            durable: the consumer that gives it up.
            reason: why, one line.
            retry_after: seconds after which the original comes again when the letter cannot be stored.
        """
        await self._free.acquire()
        task = asyncio.create_task(self._store(message, durable, one_line(reason), retry_after))
        self._writing.add(task)
        task.add_done_callback(self._done)

    async def flush(self, seconds: float = 2.0) -> None:
        """Wait for the letters under way; those that take longer are written when their originals come again."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=seconds)
        for task in self._writing:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        self._free.release()

    async def _store(self, message: Msg, durable: str, reason: str, retry_after: float) -> None:
        headers, body = _fitted(self._jetstream, *_letter(message, durable, reason))
        started = time.monotonic()
        try:
            stored = message.metadata.sequence.stream, message.metadata.timestamp
            subject = dead_subject(durable, _token(*stored))
            await self._jetstream.publish(subject, body, timeout=TIMEOUT, headers=headers)
            await message.term()
        except Exception as error:
            # nats-py raises several unrelated classes when it is disconnected; the original is still there.
            seconds = round(time.monotonic() - started, 1)
            log.warning("dead_letter_not_stored", consumer=durable, reason=describe(error), seconds=seconds)
            metrics.EVENTS_HANDLED.labels(durable, "retry").inc()
            await later(message, retry_after)
            return
        metrics.EVENTS_HANDLED.labels(durable, "dead").inc()
        log.error(
            "dead_letter_stored", consumer=durable, sequence=message.metadata.sequence.stream, reason=reason[:300]
        )


async def later(message: Msg, delay: float) -> None:
    """Nak; if even that cannot be sent, the message comes again after its ack_wait."""
    try:
        await message.nak(delay=delay)
    except Exception as error:
        # nats-py raises several unrelated classes when it is disconnected.
        log.warning("nak_not_sent", reason=describe(error))


def one_line(text: str) -> str:
    """The text on one line that a header can carry, of bounded length."""
    line = " ".join(text[: 2 * MAX_REASON].split())[:MAX_REASON]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


async def store_refused(jetstream: JetStreamContext, service: str, event: Outgoing, reason: str) -> PubAck:
    """Store as a dead letter what JetStream refuses for good; raises what a publish raises."""
    name = service + OUTBOX
    now = datetime.now(UTC)
    headers, whole = _kept(event.headers)
    headers |= {
        "Lorafleet-Reason": one_line(f"cannot be published: {reason}"),
        "Lorafleet-Event-Id": event.id,
        "Lorafleet-Consumer": name,
        "Lorafleet-Subject": one_line(event.subject[:MAX_HEADER]),
        "Lorafleet-Deliveries": "0",
        "Lorafleet-Time": now.isoformat(),
        "Nats-Msg-Id": f"{name}:{event.id}",
    }
    headers, body = _fitted(jetstream, headers, event.body, whole)
    token = _token(hashlib.sha256(event.id.encode()).hexdigest()[:16], now)
    ack = await jetstream.publish(dead_subject(name, token), body, timeout=TIMEOUT, headers=headers)
    metrics.OUTBOX_REFUSED.labels(service).inc()
    log.error("event_refused", subject=event.subject, entity=event.entity, event_id=event.id, reason=reason)
    return ack


def _fitted(
    jetstream: JetStreamContext, headers: dict[str, str], body: bytes, whole: bool
) -> tuple[dict[str, str], bytes]:
    """A letter that the server takes: where the event is cut, a header gives its body's size."""
    room = min(MAX_BODY, room_beside(jetstream, {**headers, "Lorafleet-Truncated": str(len(body))}))
    if len(body) > room or not whole:
        return {**headers, "Lorafleet-Truncated": str(len(body))}, body[: max(room, 0)]
    return headers, body


def _letter(message: Msg, durable: str, reason: str) -> tuple[dict[str, str], bytes, bool]:
    """Headers, body, and whether the event's headers are all among them, unchanged."""
    metadata = message.metadata
    headers, whole = _kept(message.headers or {})
    headers |= {
        "Lorafleet-Reason": reason,
        "Lorafleet-Event-Id": _event_id(message),
        "Lorafleet-Consumer": durable,
        "Lorafleet-Subject": message.subject,
        "Lorafleet-Sequence": str(metadata.sequence.stream),
        "Lorafleet-Stored": metadata.timestamp.isoformat(),
        "Lorafleet-Deliveries": str(metadata.num_delivered),
        "Lorafleet-Time": datetime.now(UTC).isoformat(),
        # The same for every delivery: a letter whose original could not be ended is not stored twice.
        "Nats-Msg-Id": f"{durable}:{metadata.sequence.stream}:{metadata.timestamp.timestamp()}",
    }
    return headers, message.data, whole


def _event_id(message: Msg) -> str:
    """The event's own id, also where it stands in its body or follows from its place in the stream."""
    stored = Stored.of(message)
    try:
        return read_envelope(message.subject, message.headers, message.data, *stored)[0].id
    except Refused:
        given = {name.lower(): value for name, value in (message.headers or {}).items()}.get("ce-id", "")
        return one_line(given[:MAX_HEADER]) or substitute_id(*stored)


def _kept(headers: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """The headers that a letter keeps, and whether that is all of them, unchanged."""
    own = {name: value for name, value in headers.items() if not name.startswith(("Nats-", "Lorafleet-"))}
    # The event's own attributes come first where there are too many.
    ordered = sorted(own, key=lambda name: not name.lower().startswith(("ce-", "content-type")))[:MAX_HEADERS]
    kept = {name: own[name] for name in ordered if _NAME.fullmatch(name) and len(name) <= MAX_HEADER}
    kept = {name: one_line(value[:MAX_HEADER]) for name, value in kept.items()}
    return kept, all(kept.get(name) == value.strip() for name, value in own.items())
