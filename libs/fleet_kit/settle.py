"""The one place where an outcome becomes ack, nak or a dead letter."""

import asyncio
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from nats.aio.msg import Msg

from fleet_kit import metrics
from fleet_kit.dead_letter_writer import DeadLetterWriter, later
from fleet_kit.errors import LeaseLost, NotYet, Refused
from fleet_kit.faults import describe, is_deterministic, is_transient

__all__ = ["Settlement"]

log = structlog.get_logger()

TRIES = 5
"""Failures after which an unexpected exception, most likely a defect of ours, becomes a dead letter."""

TRACEBACK_SECONDS = 60.0
"""How often the traceback of one place in the code is logged at most."""
_REMEMBERED = 10_000


def backoff(deliveries: int) -> float:
    """Seconds until the next try: 0.5, 1, 2, … at most 15."""
    return float(min(0.5 * 2 ** min(deliveries - 1, 10), 15.0))


@dataclass
class Settlement:
    """Runs handlers and answers their messages, for one process."""

    writer: DeadLetterWriter
    _failures: OrderedDict[tuple[str, int], int] = field(default_factory=OrderedDict)
    """Unexpected exceptions by consumer and message. Not the delivery count: that grows with every wait too."""
    _shown: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    """When the traceback of a place was logged last."""

    async def settle(
        self, message: Msg, durable: str, handle: Callable[[], Awaitable[str]], *, alone: bool = True
    ) -> None:
        """Run a handler and answer its message. Never raises, except for cancellation.

        Args:
            message: the delivery.
            durable: its consumer.
            handle: does the work; returns its outcome for the metrics.
            alone: the handler depends on the event and the database alone, so a value that it cannot handle comes from
                the event. Long work also depends on what other services answer, so it is tried again.
        """
        deliveries = message.metadata.num_delivered
        outcome: str | None = "retry"
        try:
            outcome = await handle()
            await message.ack()
        except asyncio.CancelledError:
            # The service stops: another worker gets the message at once.
            await later(message, 0.1)
            raise
        except NotYet as error:
            log.info("event_deferred", consumer=durable, reason=str(error), after=error.after)
            await later(message, error.after)
        except LeaseLost as error:
            log.warning("lease_taken_over", consumer=durable, reason=str(error))
            await later(message, 5.0)
        except Refused as error:
            outcome = None
            await self._dead_letter(message, durable, f"refused: {error}")
        except Exception as error:
            if is_transient(error):
                log.warning("transient_fault", consumer=durable, reason=describe(error), deliveries=deliveries)
                await later(message, backoff(deliveries))
            else:
                outcome = await self._failed(message, durable, error, at_once=alone and is_deterministic(error))
        finally:
            if outcome is not None:
                metrics.EVENTS_HANDLED.labels(durable, outcome).inc()

    async def _failed(self, message: Msg, durable: str, error: Exception, *, at_once: bool) -> str | None:
        """A defect, or content that no code of ours can handle: a dead letter at once where a retry ends the same."""
        self._show(durable, error)
        if at_once:
            await self._dead_letter(message, durable, f"cannot be handled: {_named(error)}")
            return None
        key = durable, message.metadata.sequence.stream
        failures = self._failures.pop(key, 0) + 1
        if failures >= TRIES:
            await self._dead_letter(message, durable, f"failed {failures} times: {_named(error)}")
            return None
        self._failures[key] = failures
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        await later(message, backoff(failures))
        return "retry"

    async def _dead_letter(self, message: Msg, durable: str, reason: str) -> None:
        """Hand the message to the writer, which also counts the outcome."""
        await self.writer.submit(message, durable, reason, backoff(message.metadata.num_delivered))

    def _show(self, durable: str, error: Exception) -> None:
        """Log the exception; with its traceback unless the same place had one a moment ago."""
        frames = traceback.extract_tb(error.__traceback__, limit=-1)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        key, now = (type(error).__name__, place), time.monotonic()
        if now - self._shown.get(key, float("-inf")) < TRACEBACK_SECONDS:
            log.error("handler_failed", consumer=durable, reason=describe(error), place=place)
            return
        self._shown[key] = now
        self._shown.move_to_end(key)
        if len(self._shown) > _REMEMBERED:
            self._shown.popitem(last=False)
        log.error("handler_failed", consumer=durable, reason=describe(error), place=place, exc_info=error)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}({str(error)[:1000]!r})"
