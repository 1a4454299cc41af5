"""Whatever is published, good events are handled once, each hostile one becomes one dead letter, and nobody is held up."""

import asyncio
import json
import statistics
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest
import structlog
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import DEAD_STREAM
from fleet_kit.dead_letters import list_dead
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction
from tests.integration.kit.hostile import hostile_events

SUBJECT = "lorafleet.v1.data.feedback_recorded"
pytestmark = pytest.mark.integration
Published = tuple[bytes, dict[str, str]]


async def publish(jetstream: JetStreamContext, events: Iterable[Published]) -> int:
    """Publish in order, many at a time; returns how many."""
    published, waiting = 0, []
    for body, headers in events:
        waiting.append(await jetstream.publish_async(SUBJECT, body, headers=headers))
        published += 1
        if len(waiting) == 100:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    return published


async def letters(jetstream: JetStreamContext) -> int:
    return int((await jetstream.stream_info(DEAD_STREAM)).state.messages)


def good(name: str, count: int) -> list[Published]:
    bodies = (v1.FeedbackRecorded(generation_id=f"{name}-{number}", rating=5) for number in range(count))
    return [(body.to_json(), {"ce-id": body.generation_id}) for body in bodies]


ORDINARY = 4096
"""Bytes of a body whose size does not matter for how long it takes."""


def ordinary(seed: int, count: int) -> Iterator[Published]:
    return islice((event for event in hostile_events(seed, 2 * count) if len(event[0]) < ORDINARY), count)


class Reader:
    """A registry that writes one row for each good event."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.handlers: Handlers[Any] = Handlers("registry")
        self.handlers.on(v1.FeedbackRecorded)(self._handle)

    async def _handle(self, event: v1.FeedbackRecorded, tx: Transaction, _service: Any) -> None:
        await tx.connection.execute("insert into probe (written_at) values (now()) on conflict (id) do nothing")
        self.handled.append(event.generation_id)


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(20261127, 300, id="300"),
        pytest.param(20261128, 20_000, id="20000", marks=[pytest.mark.heavy, pytest.mark.timeout(3600)]),
    ],
)
async def test_hostile_events_become_dead_letters_and_delay_no_other(
    run_kit, jetstream: JetStreamContext, eventually, capsys: pytest.CaptureFixture[str], seed: int, count: int
) -> None:
    reader = Reader()
    before = await letters(jetstream)
    # In the long run without the largest: the letters of all have to find room in their stream.
    hostile = hostile_events(seed, count) if count < 1000 else ordinary(seed, count)
    events = zip(good(f"beside-{seed}", count), hostile, strict=True)
    assert await publish(jetstream, (event for pair in events for event in pair)) == 2 * count

    async def all_answered() -> bool:
        return len(reader.handled) >= count and await letters(jetstream) - before >= count

    with structlog.testing.capture_logs() as log:
        async with run_kit(reader.handlers):
            await eventually(all_answered, 120 + count / 5)
    assert sorted(reader.handled) == sorted(f"beside-{seed}-{number}" for number in range(count))
    lines = [entry for entry in log if entry["event"] == "dead_letter_stored"]
    size = sum(len(json.dumps(entry, default=str)) for entry in log)
    with capsys.disabled():
        print(
            f"\n{count} good beside {count} hostile events: {len(reader.handled)} handled, {len(lines)} dead letters, "
            f"0 restarts; {size / count:.0f} bytes of log for each hostile event"
        )
    assert await letters(jetstream) - before == len(lines) == count
    assert not any(entry.get("exc_info") for entry in log)
    assert size < 1000 * count


async def test_a_poison_event_costs_no_more_than_a_good_one(
    run_kit, jetstream: JetStreamContext, eventually, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, count = 20261129, 300

    async def seconds(reader: Reader) -> float:
        """From the start of a service until it has handled all good events."""
        async with run_kit(reader.handlers):
            began = time.perf_counter()
            await eventually(lambda: len(reader.handled) >= count, 60 + count / 10)
            return time.perf_counter() - began

    alone: list[float] = []
    beside: list[float] = []
    for turn in range(3):
        await publish(jetstream, good(f"alone-{seed}-{turn}", count))
        alone.append(await seconds(Reader()))
        events = zip(good(f"paired-{seed}-{turn}", count), ordinary(seed + turn, count), strict=True)
        await publish(jetstream, (event for pair in events for event in pair))
        beside.append(await seconds(Reader()))
    ratio = statistics.median(after / before for before, after in zip(alone, beside, strict=True))
    with capsys.disabled():
        print(
            f"\n{count} good events take {ratio:.2f} times as long beside {count} poison events of up to {ORDINARY} bytes"
        )
    assert ratio < 4


async def test_a_defect_that_many_events_meet_logs_one_traceback(
    run_kit, jetstream: JetStreamContext, eventually
) -> None:
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        if event.comment == "defect":
            raise ValueError(f"of {event.generation_id}")

    events = [v1.FeedbackRecorded(generation_id=f"defect-{number}", rating=5, comment="defect") for number in range(30)]
    before = (await jetstream.stream_info(DEAD_STREAM)).state.messages
    await publish(jetstream, [(event.to_json(), {"ce-id": event.generation_id}) for event in events])
    with structlog.testing.capture_logs() as log:
        async with run_kit(handlers):

            async def all_dead_letters() -> bool:
                return (await jetstream.stream_info(DEAD_STREAM)).state.messages - before == 30

            await eventually(all_dead_letters, 30)
    failed = [entry for entry in log if entry["event"] == "handler_failed"]
    assert len(failed) == 30
    assert sum(bool(entry.get("exc_info")) for entry in failed) == 1


async def test_a_dead_letter_is_stored_though_its_headers_are_too_many_or_cannot_be_written(
    run_kit, jetstream: JetStreamContext, eventually
) -> None:
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        raise AssertionError("it must not come this far")

    headers = {f"x-{number}": "v" * 500 for number in range(100)} | {"ce-id": "bell\x07", "ce-subject": "s" * 5000}
    await jetstream.publish(SUBJECT, b"{}", headers=headers)
    async with run_kit(handlers):

        async def stored() -> list[Any]:
            return [
                letter
                async for letter in list_dead(jetstream)
                if letter.body == b"{}" and "headers of" in letter.reason
            ]

        await eventually(stored)
        [letter] = await stored()
        assert letter.truncated
        assert letter.body == b"{}"
        assert sum(map(len, letter.headers.values())) < 60_000
