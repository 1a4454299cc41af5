"""The one place where an outcome becomes ack, nak or a dead letter."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import httpx
import nats.errors
import structlog
import urllib3.exceptions
from minio.error import S3Error, ServerError
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from fleet_kit import metrics
from fleet_kit.errors import LeaseLost, NotYet, Refused

__all__ = ["TRANSIENT", "dead_subject", "settle"]

log = structlog.get_logger()

TRANSIENT: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    socket.gaierror,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    httpx.TransportError,
    urllib3.exceptions.HTTPError,
    ServerError,
    nats.errors.Error,
)
"""Faults of the surroundings: they pass by themselves, so the event waits as long as it takes."""

TRIES = 5
"""Deliveries after which an unexpected exception, most likely a defect of ours, becomes a dead letter."""

MAX_DEAD_BODY = 900_000


def dead_subject(durable: str) -> str:
    """Subject of a durable's dead letters: registry-training_completed → lorafleet.dlq.registry.training_completed."""
    service, _, event = durable.partition("-")
    return f"lorafleet.dlq.{service}.{event}"


def backoff(deliveries: int) -> float:
    """Seconds until the next try: 0.5, 1, 2, … at most 15."""
    return float(min(0.5 * 2 ** min(deliveries - 1, 10), 15.0))


async def settle(message: Msg, durable: str, jetstream: JetStreamContext, handle: Callable[[], Awaitable[str]]) -> None:
    """Run a handler and answer its message. Never raises, except for cancellation."""
    deliveries = message.metadata.num_delivered
    outcome = "retry"
    try:
        outcome = await handle()
        await message.ack()
    except asyncio.CancelledError:
        # The service stops: whoever is left gets the message at once.
        await _answer(message, delay=0.1)
        raise
    except NotYet as error:
        log.info("event waits", consumer=durable, reason=str(error), after=error.after)
        await _answer(message, delay=error.after)
    except LeaseLost as error:
        log.warning("work was taken over", consumer=durable, reason=str(error))
        await _answer(message, delay=5.0)
    except Refused as error:
        outcome = await _bury(message, durable, jetstream, f"refused: {error}")
    except S3Error as error:
        # 5xx answers are S3Errors too; a missing right or bucket will not pass by itself, but an operator mends it.
        await _retry(message, durable, error, deliveries)
    except TRANSIENT as error:
        await _retry(message, durable, error, deliveries)
    except Exception as error:
        log.exception("handler failed", consumer=durable, deliveries=deliveries)
        if deliveries >= TRIES:
            outcome = await _bury(message, durable, jetstream, f"failed {deliveries} times: {error!r}")
        else:
            await _answer(message, delay=backoff(deliveries))
    finally:
        metrics.EVENTS_HANDLED.labels(durable, outcome).inc()


async def _retry(message: Msg, durable: str, error: BaseException, deliveries: int) -> None:
    log.warning("transient fault", consumer=durable, reason=repr(error), deliveries=deliveries)
    await _answer(message, delay=backoff(deliveries))


async def _answer(message: Msg, delay: float) -> None:
    """Nak; if even that cannot be sent, the message comes again after its ack_wait."""
    try:
        await message.nak(delay=delay)
    except Exception as error:
        # nats-py raises several unrelated classes when it is disconnected.
        log.warning("nak not sent", reason=repr(error))


async def _bury(message: Msg, durable: str, jetstream: JetStreamContext, reason: str) -> str:
    """Store a copy with its reason, then end the original; without the copy's PubAck the original comes again."""
    metadata = message.metadata
    body = message.data
    headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith("Nats-")}
    headers |= {
        "Lorafleet-Reason": " ".join(reason.split())[:2000],
        "Lorafleet-Consumer": durable,
        "Lorafleet-Subject": message.subject,
        "Lorafleet-Sequence": str(metadata.sequence.stream),
        "Lorafleet-Deliveries": str(metadata.num_delivered),
        "Lorafleet-Time": datetime.now(UTC).isoformat(),
        "Nats-Msg-Id": f"{durable}:{metadata.sequence.stream}:{metadata.num_delivered}",
    }
    if len(body) > MAX_DEAD_BODY:
        headers["Lorafleet-Truncated"] = str(len(body))
        body = body[:MAX_DEAD_BODY]
    try:
        await jetstream.publish(dead_subject(durable), body, timeout=5, headers=headers)
        await message.term()
    except Exception as error:
        log.warning("dead letter not stored", consumer=durable, reason=repr(error))
        await _answer(message, delay=backoff(metadata.num_delivered))
        return "retry"
    log.error("dead letter", consumer=durable, reason=reason)
    return "dead"
