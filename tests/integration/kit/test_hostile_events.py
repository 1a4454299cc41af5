"""Whatever is published, good events are handled once, each hostile one becomes one dead letter, and nobody is held up."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
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


def good(name: str, count: int) -> list[Published]:
    bodies = (v1.FeedbackRecorded(generation_id=f"{name}-{number}", rating=5) for number in range(count))
    return [(body.to_json(), {"ce-id": body.generation_id}) for body in bodies]


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(20261127, 300, id="300"),
        pytest.param(20261128, 20_000, id="20000", marks=[pytest.mark.heavy, pytest.mark.timeout(3600)]),
    ],
)
async def test_hostile_events_become_dead_letters_and_hold_nobody_up(
    run_kit, jetstream: JetStreamContext, eventually, capsys: pytest.CaptureFixture[str], seed: int, count: int
) -> None:
    handled: list[str] = []
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        await tx.connection.execute("insert into probe (written_at) values (now()) on conflict (id) do nothing")
        handled.append(event.generation_id)

    async def rate(expected: int, patience: float) -> float:
        """Good events a second, from the start of the service until all are handled and nothing is pending."""
        async with run_kit(handlers):
            began = time.perf_counter()
            await eventually(lambda: len(handled) >= expected, patience)
            return expected / (time.perf_counter() - began)

    async def letters() -> int:
        return int((await jetstream.stream_info(DEAD_STREAM)).state.messages)

    before = await letters()
    alone_count = min(count, 2000)
    await publish(jetstream, good(f"alone-{seed}", alone_count))
    alone = await rate(alone_count, 60 + count / 10)
    handled.clear()
    capsys.readouterr()

    mixed = [
        event for pair in zip(good(f"beside-{seed}", count), hostile_events(seed, count), strict=True) for event in pair
    ]
    assert await publish(jetstream, mixed) == 2 * count
    beside = await rate(count, 120 + count / 5)

    async with run_kit(handlers):

        async def all_buried() -> bool:
            return await letters() - before == count

        await eventually(all_buried, 30)
    assert sorted(handled) == sorted(f"beside-{seed}-{number}" for number in range(count))
    log = capsys.readouterr().out.splitlines()
    lines = [line for line in log if json.loads(line)["event"] == "dead letter"]
    with capsys.disabled():
        print(
            f"\n{count} good beside {count} hostile events: {len(handled)} handled, {len(lines)} dead letters, 0 restarts; "
            f"{alone:.0f} good events/s alone, {beside:.0f} beside ({beside / alone:.2f}); "
            f"{sum(map(len, log)) / count:.0f} bytes of log for each hostile event"
        )
    assert len(lines) == count
    assert not any("Traceback" in line for line in log)
    assert sum(map(len, log)) < 1000 * count
    assert beside > alone / 4


async def test_a_defect_that_many_events_meet_logs_one_traceback(
    run_kit, jetstream: JetStreamContext, eventually, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        if event.comment == "defect":
            raise ValueError(f"of {event.generation_id}")

    events = [v1.FeedbackRecorded(generation_id=f"defect-{number}", rating=5, comment="defect") for number in range(30)]
    before = (await jetstream.stream_info(DEAD_STREAM)).state.messages
    await publish(jetstream, [(event.to_json(), {"ce-id": event.generation_id}) for event in events])
    async with run_kit(handlers):

        async def all_buried() -> bool:
            return (await jetstream.stream_info(DEAD_STREAM)).state.messages - before == 30

        await eventually(all_buried, 30)
    failed = [line for line in capsys.readouterr().out.splitlines() if '"handler failed"' in line]
    assert len(failed) == 30
    assert sum("Traceback" in line for line in failed) == 1


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
