"""A service's own dead letters: it reads them one by one and handles them again, by rights that reach no other's.

Each has a subject below the service's, see `dead_letter_writer.dead_subject`. Those that an earlier release wrote share
theirs: only an operator of the bus handles them, by `lorafleet dlq`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from fleet_events.topology import DEAD_STREAM
from fleet_kit import tasks
from fleet_kit.dead_letter_writer import OUTBOX
from fleet_kit.dead_letters import REPLAYED, DeadLetter, mark_subject, read_letter, replay_headers
from fleet_kit.delivery import Dispatcher
from fleet_kit.faults import describe
from fleet_kit.handlers import Binding

__all__ = ["OwnDeadLetters", "Replayed"]

log = structlog.get_logger()

MARKED_FOR = timedelta(days=30)
"""How long it is remembered that a letter was replayed, and by whom."""
_LEVELS = 5
"""Of a letter's subject: lorafleet.dlq.registry.training_completed.12-1796227200000000."""


@dataclass(frozen=True)
class Replayed:
    """A letter that is gone. `by`: who replayed it."""

    by: str


@dataclass
class OwnDeadLetters:
    """Those of one service.

    A letter's id is the end of its subject: `training_completed.12-1796227200000000`.
    """

    service: str
    jetstream: JetStreamContext
    dispatcher: Dispatcher
    bindings: Mapping[str, Binding]
    """By durable."""
    _working: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def newest(self, limit: int) -> tuple[list[DeadLetter], bool, int]:
        """Letters, newest first; whether there are more; and how many an earlier release wrote."""
        info = await self.jetstream.stream_info(DEAD_STREAM, subjects_filter=f"{self._subjects}>")
        counts = info.state.subjects or {}
        own = [subject for subject in counts if subject.count(".") == _LEVELS - 1]
        earlier = sum(count for subject, count in counts.items() if subject.count(".") < _LEVELS - 1)
        own.sort(key=_time, reverse=True)
        found: list[DeadLetter] = []
        for subject in own:
            letter = await self._letter(subject)
            if letter is None:
                continue
            if len(found) == limit:
                return found, True, earlier
            found.append(letter)
        return found, False, earlier

    async def one(self, letter_id: str) -> DeadLetter | Replayed:
        """A letter, or who replayed it; raises LookupError."""
        place = f"{self._subjects}{letter_id}"
        if (letter := await self._letter(place)) is not None:
            return letter
        if (mark := await self._message(mark_subject(place))) is not None:
            return Replayed(mark.headers[REPLAYED])
        raise LookupError(f"{self.service} has no dead letter {letter_id!r}")

    def id_of(self, letter: DeadLetter) -> str:
        """What `one` finds it by."""
        return letter.place.removeprefix(self._subjects)

    def is_long(self, letter: DeadLetter) -> bool:
        """Whether it takes a while to handle, as a training does."""
        binding = self.bindings.get(letter.consumer)
        return binding is not None and binding.lease is not None

    async def replay(self, letter: DeadLetter, by: str) -> str:
        """Handle the letter's event once more, and remove the letter; returns the outcome.

        What no stream took is published; what a consumer gave up is handled here, by nobody else. The letter stays
        where that fails.

        Raises:
            LookupError: this release has no such consumer.
            Exception: what the handler, or the server, raises.
        """
        if letter.consumer == self.service + OUTBOX:
            await self.jetstream.publish(letter.subject, letter.body, timeout=5, headers=replay_headers(letter))
            outcome = "published"
        else:
            binding = self.bindings.get(letter.consumer)
            if binding is None:
                raise LookupError(f"{self.service} has no consumer {letter.consumer!r} any more")
            outcome = await self.dispatcher.replay(letter, binding)
        await self._remove(letter, by)
        log.info("dead_letter_replayed", consumer=letter.consumer, event_id=letter.event_id, by=by, outcome=outcome)
        return outcome

    def begin(self, letter: DeadLetter, by: str) -> bool:
        """Replay in the background; False where that is under way already in this process."""
        if letter.place in self._working:
            return False

        async def work() -> None:
            try:
                await self.replay(letter, by)
            except Exception as error:
                log.warning("dead_letter_replay_failed", consumer=letter.consumer, reason=describe(error), by=by)
            finally:
                del self._working[letter.place]

        self._working[letter.place] = asyncio.create_task(work())
        return True

    async def stop(self) -> None:
        """End the replays in the background; their letters stay."""
        await tasks.end(*self._working.values())

    async def _remove(self, letter: DeadLetter, by: str) -> None:
        """Leave a mark, then put in the letter's place what is gone after a second."""
        mark = {"Nats-TTL": f"{int(MARKED_FOR.total_seconds())}s", REPLAYED: by}
        await self.jetstream.publish(mark_subject(letter.place), b"", timeout=5, headers=mark)
        gone = {"Nats-Rollup": "sub", "Nats-TTL": "1s", REPLAYED: by}
        await self.jetstream.publish(letter.place, b"", timeout=5, headers=gone)

    async def _letter(self, place: str) -> DeadLetter | None:
        found = await self._message(place)
        return None if found is None or REPLAYED in found.headers else found

    async def _message(self, subject: str) -> DeadLetter | None:
        try:
            return read_letter(await self.jetstream.get_last_msg(DEAD_STREAM, subject, direct=True))
        except NotFoundError:
            return None

    @property
    def _subjects(self) -> str:
        return f"lorafleet.dlq.{self.service}."


def _time(subject: str) -> int:
    """Microseconds since 1970, the end of its subject."""
    end = subject.rpartition("-")[2]
    return int(end) if end.isdigit() else 0
