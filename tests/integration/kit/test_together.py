"""Events that arrive together share a transaction; what fails among them fails alone, and nothing takes effect twice."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_kit.dead_letters import list_dead
from fleet_kit.errors import NotYet, Refused
from fleet_kit.handlers import Delivered, Handlers
from fleet_kit.service import Service
from fleet_kit.settings import ServiceSettings
from fleet_kit.transaction import Transaction
from tests.integration.kit.conftest import Run, durable_of
from tests.integration.kit.test_kills import running, short_ack_wait

SUBJECT = "lorafleet.v1.data.feedback_recorded"
pytestmark = pytest.mark.integration


class Recorder:
    """Its effect on an event is a row, whose token counts how often it took effect, and an event in the outbox."""

    def __init__(self) -> None:
        self.handlers: Handlers[Any] = Handlers("registry")
        self.early = 0
        self.handlers.on(v1.FeedbackRecorded)(self.handle)

    async def handle(self, event: v1.FeedbackRecorded, tx: Transaction, _service: object) -> None:
        await effect(tx, event.generation_id)
        match event.comment:
            case "refuse":
                raise Refused("it can never work")
            case "statement":
                await tx.connection.execute("select 1/0")
            case "caught":
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await tx.connection.execute("select 1/0")
            case "early" if self.early < 2:
                self.early += 1
                raise NotYet("too early", after=0.05)


async def effect(tx: Transaction, generation: str) -> None:
    await tx.connection.execute(
        "insert into lease (name, holder, token, expires_at) values ($1, 'effect', 1, now())"
        " on conflict (name) do update set token = lease.token + 1",
        f"effect:{generation}",
    )
    await tx.emit(v1.Rejected(adapter_id=generation, family="f", domain="d", by="test"), "all of them")


async def publish(jetstream: JetStreamContext, generation: str, comment: str = "", copy: str = "") -> None:
    body = v1.FeedbackRecorded(generation_id=generation, rating=5, comment=comment).to_json()
    headers = {"ce-id": generation, "ce-subject": generation, "Nats-Msg-Id": f"{generation}{copy}"}
    await jetstream.publish(SUBJECT, body, headers=headers)


@pytest.fixture
async def service_of(run_kit: Run, settings_of: Callable[..., ServiceSettings]) -> Run:
    """`async with service_of(handlers) as service:`, beginning with empty tables."""
    connection = await asyncpg.connect(settings_of("registry").database_url)
    for table in ("inbox", "outbox", "lease"):
        await connection.execute(f"delete from registry.{table}")
    await connection.close()
    return run_kit


async def effects(service: Service[Any, Any]) -> dict[str, int]:
    async with service.db.acquire() as connection:
        rows = await connection.fetch("select substr(name, 8) as name, token from lease where holder = 'effect'")
    return {row["name"]: row["token"] for row in rows}


async def in_order(service: Service[Any, Any]) -> list[str]:
    """Generations in the order of their effects."""
    async with service.db.acquire() as connection:
        rows = await connection.fetch("select body from outbox order by position")
    return [v1.Rejected.from_json(row["body"]).adapter_id for row in rows]


async def transactions(service: Service[Any, Any]) -> int:
    """In how many transactions events were handled."""
    async with service.db.acquire() as connection:
        return int(await connection.fetchval("select count(distinct xmin::text) from inbox"))


async def acknowledged(jetstream: JetStreamContext) -> bool:
    return (await durable_of(jetstream, "registry", v1.FeedbackRecorded)).idle


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:03}" for number in range(count)]


async def test_events_that_arrive_together_share_transactions_and_keep_their_order(
    service_of, jetstream, eventually
) -> None:
    generations = names("shared", 60)
    for generation in generations:
        await publish(jetstream, generation)
    async with service_of(Recorder().handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        assert await effects(service) == dict.fromkeys(generations, 1)
        assert await in_order(service) == generations
        assert await transactions(service) < 12


@pytest.mark.parametrize("comment", ["refuse", "statement"])
async def test_an_event_that_fails_in_the_middle_fails_alone(service_of, jetstream, eventually, comment: str) -> None:
    generations = names(comment, 40)
    failing = {generations[0], generations[17], generations[18], generations[39]}
    for generation in generations:
        await publish(jetstream, generation, comment if generation in failing else "")

    async def letters() -> set[str]:
        return {letter.event_id async for letter in list_dead(jetstream)} & set(generations)

    async with service_of(Recorder().handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        good = [generation for generation in generations if generation not in failing]
        assert await effects(service) == dict.fromkeys(good, 1)
        assert await in_order(service) == good
        assert await letters() == failing
        assert await transactions(service) < len(good)


async def test_an_error_that_a_handler_catches_takes_no_effect_from_the_events_beside_it(
    service_of, jetstream, eventually
) -> None:
    """PostgreSQL has aborted the transaction then, and answers its commit with a rollback."""
    generations = names("caught", 15)
    for generation in generations:
        await publish(jetstream, generation, "caught" if generation.endswith("-014") else "")
    async with service_of(Recorder().handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        assert set(generations[:14]) <= set(await effects(service))


async def test_an_event_that_is_too_early_holds_up_none_of_those_beside_it(service_of, jetstream, eventually) -> None:
    generations = names("early", 20)
    for generation in generations:
        await publish(jetstream, generation, "early" if generation.endswith("-005") else "")
    async with service_of(Recorder().handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        assert await effects(service) == dict.fromkeys(generations, 1)
        order = await in_order(service)
        assert [one for one in order if not one.endswith("-005")] == [g for g in generations if not g.endswith("-005")]


async def test_copies_in_one_batch_and_of_what_was_handled_before_take_no_second_effect(
    service_of, jetstream, eventually
) -> None:
    await publish(jetstream, "before")
    async with service_of(Recorder().handlers):
        await eventually(lambda: acknowledged(jetstream))
    generations = ["one", "before", "two", "one", "three", "two", "before", "four"]
    for number, generation in enumerate(generations):
        await publish(jetstream, generation, copy=f" {number}")
    async with service_of(Recorder().handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        assert await effects(service) == dict.fromkeys(("before", "one", "two", "three", "four"), 1)
        assert await in_order(service) == ["before", "one", "two", "three", "four"]


async def test_what_a_slow_transaction_had_no_time_for_is_handled_by_the_next(
    service_of, jetstream, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its inbox rows were written with the others: they must not be committed without their effects."""
    monkeypatch.setattr("fleet_kit.together.HOLD_SECONDS", 0.0)
    generations = names("slow", 12)
    for generation in generations:
        await publish(jetstream, generation)
    async with service_of(Recorder().handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        assert await effects(service) == dict.fromkeys(generations, 1)
        assert await in_order(service) == generations
        assert await transactions(service) == 12


async def test_a_process_killed_between_commit_and_acknowledgement_leaves_one_effect_of_each(
    service_env: Callable[..., dict[str, str]], jetstream: JetStreamContext, eventually
) -> None:
    await short_ack_wait(jetstream, "registry", v1.FeedbackRecorded)
    generations = names("unacknowledged", 20)
    for generation in generations:
        await publish(jetstream, generation)
    env = service_env("registry") | {"DIES_BEFORE_ACKNOWLEDGING": generations[7]}
    async with running(env) as program:
        await eventually(lambda: program.exits == [-9], 30)
        await eventually(lambda: acknowledged(jetstream), 30)
        assert program.exits == [-9]
        assert [program.began(generation) for generation in generations] == [1] * 20
        connection = await asyncpg.connect(env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "registry"})
        rows = await connection.fetch("select event_id from inbox where event_id like 'unacknowledged-%'")
        await connection.close()
        assert sorted(row["event_id"] for row in rows) == generations


async def test_a_handler_of_many_gets_each_event_once_and_what_it_cannot_handle_is_found_one_by_one(
    service_of, jetstream, eventually
) -> None:
    handlers: Handlers[Any] = Handlers("registry")
    sizes: list[int] = []

    async def handle_many(events: Sequence[Delivered[v1.FeedbackRecorded]], tx: Transaction, _service: object) -> None:
        sizes.append(len(events))
        for one in events:
            assert one.envelope.entity == one.event.generation_id
            await effect(tx, one.event.generation_id)
        if any(one.event.comment for one in events):
            raise Refused("one of them can never work")

    @handlers.on(v1.FeedbackRecorded, many=handle_many)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, _service: object) -> None:
        if event.comment:
            raise Refused("this one")
        await effect(tx, event.generation_id)

    generations = names("many", 40)
    for generation in generations:
        await publish(jetstream, generation, "refuse" if generation.endswith("-022") else "")
    async with service_of(handlers) as service:
        await eventually(lambda: acknowledged(jetstream))
        assert await effects(service) == {name: 1 for name in generations if not name.endswith("-022")}
        assert "many-022" in [letter.event_id async for letter in list_dead(jetstream)]
        assert max(sizes) > 1
