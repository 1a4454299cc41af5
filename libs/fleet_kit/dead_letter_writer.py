"""Writes dead letters beside the handling of other events, so that a poison event costs less than a good one."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from fleet_kit import metrics
from fleet_kit.cloudevents import Stored, read_envelope, substitute_id
from fleet_kit.errors import Refused
from fleet_kit.faults import describe
from fleet_kit.publishing import TIMEOUT

__all__ = ["DeadLetterWriter", "dead_subject"]

log = structlog.get_logger()

MAX_BODY = 900_000
MAX_REASON = 2000
MAX_HEADER = 1000
MAX_HEADERS = 40
IN_FLIGHT = 64
"""Dead letters that wait for their acknowledgement at once. Further ones hold up their consumers."""


def dead_subject(durable: str) -> str:
    """Subject of a durable's dead letters: registry-training_completed → lorafleet.dlq.registry.training_completed."""
    service, _, event = durable.partition("-")
    return f"lorafleet.dlq.{service}.{event}"


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
        body, headers = _letter(message, durable, reason)
        started = time.monotonic()
        try:
            await self._jetstream.publish(dead_subject(durable), body, timeout=TIMEOUT, headers=headers)
            await message.term()
        except Exception as error:
            # nats-py raises several unrelated classes when it is disconnected; the original is still there.
            seconds = round(time.monotonic() - started, 1)
            log.warning("dead letter not stored", consumer=durable, reason=describe(error), seconds=seconds)
            metrics.EVENTS_HANDLED.labels(durable, "retry").inc()
            await later(message, retry_after)
            return
        metrics.EVENTS_HANDLED.labels(durable, "dead").inc()
        log.error("dead letter", consumer=durable, sequence=message.metadata.sequence.stream, reason=reason[:300])


async def later(message: Msg, delay: float) -> None:
    """Nak; if even that cannot be sent, the message comes again after its ack_wait."""
    try:
        await message.nak(delay=delay)
    except Exception as error:
        # nats-py raises several unrelated classes when it is disconnected.
        log.warning("nak not sent", reason=describe(error))


def one_line(text: str) -> str:
    """The text on one line that a header can carry, of bounded length."""
    line = " ".join(text[: 2 * MAX_REASON].split())[:MAX_REASON]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def _letter(message: Msg, durable: str, reason: str) -> tuple[bytes, dict[str, str]]:
    metadata = message.metadata
    headers, whole = _kept(message.headers or {})
    body = message.data
    headers |= {
        "Lorafleet-Reason": reason,
        "Lorafleet-Event-Id": _event_id(message),
        "Lorafleet-Consumer": durable,
        "Lorafleet-Subject": message.subject,
        "Lorafleet-Sequence": str(metadata.sequence.stream),
        "Lorafleet-Deliveries": str(metadata.num_delivered),
        "Lorafleet-Time": datetime.now(UTC).isoformat(),
        # The same for every delivery: a letter whose original could not be ended is not stored twice.
        "Nats-Msg-Id": f"{durable}:{metadata.sequence.stream}:{metadata.timestamp.timestamp()}",
    }
    if len(body) > MAX_BODY or not whole:
        headers["Lorafleet-Truncated"] = str(len(body))
        body = body[:MAX_BODY]
    return body, headers


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
    kept = {name: own[name] for name in ordered if name.isascii() and name.isprintable() and len(name) <= MAX_HEADER}
    kept = {name: one_line(value[:MAX_HEADER]) for name, value in kept.items()}
    return kept, all(kept.get(name) == value.strip() for name, value in own.items())
