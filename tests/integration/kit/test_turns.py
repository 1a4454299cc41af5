"""Replicas divide the durables among themselves, and events of one thing take effect in their order."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import durable_name, row_of
from fleet_kit import pull, turns
from fleet_kit.db import keeps_session
from fleet_kit.handlers import Handlers
from fleet_kit.service import Service
from fleet_kit.transaction import Transaction
from tests.integration.kit.conftest import durable_of

pytestmark = pytest.mark.integration

THINGS = 5
ROUNDS = 60


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas look at one another, and ask for messages again, several times a second."""
    monkeypatch.setattr(turns, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(pull, "EXPIRES", 0.5)


class Slow:
    """Notes its events in a table of the service, each transaction after a wait that differs between the replicas."""

    def __init__(self, pause: float, *, others: bool = False) -> None:
        self.handlers: Handlers[Any] = Handlers("registry")
        self.pause = pause
        self.handled = 0
        self.handlers.on(v1.FeedbackRecorded)(self.handle)
        if others:
            for event in (v1.TrainingFailed, v1.EvaluationFailed, v1.SubjectForgotten):
                self.handlers.on(event)(self.ignore)

    async def handle(self, event: v1.FeedbackRecorded, tx: Transaction, _service: object) -> None:
        await tx.emit(v1.Rejected(adapter_id=event.generation_id, family="f", domain="d", by="test"), "effects")
        await asyncio.sleep(self.pause)
        self.handled += 1

    async def ignore(self, _event: Any, _tx: Transaction, _service: object) -> None:
        return


async def publish(jetstream: JetStreamContext, first: int, last: int) -> None:
    for number in range(first, last):
        body = v1.FeedbackRecorded(generation_id=f"{number % THINGS}/{number}", rating=5).to_json()
        headers = {"ce-id": f"event-{number}", "ce-subject": str(number % THINGS)}
        await jetstream.publish("lorafleet.v1.data.feedback_recorded", body, headers=headers)


async def effects(service: Service[Any, Any]) -> dict[str, list[int]]:
    """Numbers of the events about each thing in the order in which they took effect."""
    async with service.db.acquire() as connection:
        rows = await connection.fetch("select body from outbox where entity = 'effects' order by position")
    found: dict[str, list[int]] = {}
    for row in rows:
        thing, _, number = v1.Rejected.from_json(row["body"]).adapter_id.partition("/")
        found.setdefault(thing, []).append(int(number))
    return found


async def holders(service: Service[Any, Any], *events: type[Any]) -> list[int]:
    """Processes of the database that hold the turns of these events."""
    names = [durable_name(row_of(event).consumed_by[0], row_of(event)) for event in events]
    async with service.db.acquire() as connection:
        rows = await connection.fetch(
            "select pid from pg_locks join unnest($1::text[]) as durable on"
            " hashtextextended('intake:' || durable, 0) = (classid::bigint << 32 | objid::bigint)"
            " where locktype = 'advisory' and granted",
            names,
        )
    return [row["pid"] for row in rows]


async def test_events_of_one_thing_take_effect_in_their_order_over_two_replicas_and_a_change_of_hands(
    run_kit, jetstream, eventually
) -> None:
    quick, slow = Slow(0.0), Slow(0.002)

    async def acknowledged() -> bool:
        return (await durable_of(jetstream, "registry", v1.FeedbackRecorded)).idle

    async with AsyncExitStack() as replica:
        first = await replica.enter_async_context(run_kit(slow.handlers))
        await eventually(lambda: holders(first, v1.FeedbackRecorded))
        async with run_kit(quick.handlers) as service:
            await publish(jetstream, 0, ROUNDS)
            publishing = asyncio.create_task(publish(jetstream, ROUNDS, 3 * ROUNDS))
            await eventually(lambda: slow.handled > ROUNDS // 2)
            await replica.aclose()
            await publishing
            await eventually(acknowledged)
            assert slow.handled + quick.handled == 3 * ROUNDS
            wanted = {str(thing): list(range(thing, 3 * ROUNDS, THINGS)) for thing in range(THINGS)}
            assert await effects(service) == wanted


async def test_durables_are_divided_among_replicas_and_taken_over_from_one_that_stops(run_kit, eventually) -> None:
    events = (v1.FeedbackRecorded, v1.TrainingFailed, v1.EvaluationFailed, v1.SubjectForgotten)
    async with run_kit(Slow(0.0, others=True).handlers) as service:
        await eventually(lambda: holders(service, *events))
        async with run_kit(Slow(0.0, others=True).handlers):

            async def divided() -> bool:
                held = await holders(service, *events)
                return len(held) == 4 and sorted(map(held.count, set(held))) == [2, 2]

            await eventually(divided, 30)

        async def taken_over() -> bool:
            held = await holders(service, *events)
            return len(held) == 4 and len(set(held)) == 1

        await eventually(taken_over)


async def test_a_lock_of_a_session_ends_when_its_connection_goes_back(run_kit, settings_of) -> None:
    taken = "select pg_try_advisory_lock(4711)"
    other = await asyncpg.connect(settings_of("registry").database_url)
    async with run_kit(Handlers("registry")) as service:
        async with service.db.acquire() as connection:
            keeps_session(connection)
            assert await connection.fetchval(taken)
            assert not await other.fetchval(taken)
        assert await other.fetchval(taken)
    await other.close()
