"""An event that ends its consumer's process is given up; whoever is killed beside it is not."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import consumers_of
from fleet_kit import attempts, lease
from fleet_kit.dead_letters import list_dead, replay
from fleet_kit.errors import NotYet
from fleet_kit.handlers import Handlers
from fleet_kit.leased_task import LeasedTask
from fleet_kit.provision import consumer_config
from fleet_kit.transaction import Transaction
from tests.integration.kit.conftest import durable_of

SUBJECT = "lorafleet.v1.data.feedback_recorded"
PROGRAM = Path(__file__).with_name("deadly_service.py")
pytestmark = pytest.mark.integration


class Program:
    """The program, started again whenever it ends."""

    def __init__(self) -> None:
        self.output = ""
        self.exits: list[int] = []

    def began(self, generation: str) -> int:
        return len(re.findall(rf"^began {generation}$", self.output, re.MULTILINE))

    async def keep_running(self, env: dict[str, str]) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(PROGRAM), env=env, stdout=asyncio.subprocess.PIPE
            )
            try:
                assert process.stdout is not None
                while line := await process.stdout.readline():
                    self.output += line.decode()
                self.exits.append(await process.wait())
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@asynccontextmanager
async def running(env: dict[str, str]) -> AsyncIterator[Program]:
    program = Program()
    task = asyncio.create_task(program.keep_running(env))
    try:
        yield program
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def short_ack_wait(jetstream: JetStreamContext, service: str, event: type[Any], seconds: float = 1) -> None:
    """A killed process is noticed after that time."""
    for row, consumer in consumers_of(service):
        if row.event is event:
            wanted = consumer_config(replace(consumer, ack_wait=timedelta(seconds=seconds)), row)
            await jetstream.add_consumer(row.stream.name, wanted)


async def publish(jetstream: JetStreamContext, generation: str, comment: str = "") -> None:
    body = v1.FeedbackRecorded(generation_id=generation, rating=5, comment=comment).to_json()
    await jetstream.publish(SUBJECT, body, headers={"ce-id": generation})


async def test_an_event_that_kills_its_consumer_five_times_becomes_a_dead_letter_and_others_are_handled(
    service_env: Callable[..., dict[str, str]], jetstream: JetStreamContext, eventually
) -> None:
    await short_ack_wait(jetstream, "registry", v1.FeedbackRecorded)
    env = service_env("registry")
    others = [f"other-{number}" for number in range(6)]
    for generation in others[:3]:
        await publish(jetstream, generation, "slow")
    await publish(jetstream, "poison", "deadly")
    for generation in others[3:]:
        await publish(jetstream, generation, "slow")
    async with running(env) as program:

        async def letters() -> list[Any]:
            return [letter async for letter in list_dead(jetstream)]

        await eventually(letters, 90)
        [letter] = await letters()
        assert letter.event_id == "poison"
        assert letter.reason == f"refused: {attempts.given_up(attempts.LIMIT)}"
        assert program.began("poison") == attempts.LIMIT
        assert program.exits == [-9] * attempts.LIMIT
        connection = await asyncpg.connect(env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "registry"})

        async def handled() -> bool:
            rows = await connection.fetch("select event_id from inbox")
            return {row["event_id"] for row in rows} == set(others)

        await eventually(handled, 45)
        assert await connection.fetch("select * from attempts") == []
        # A replay is a new delivery with all its attempts; here it kills again.
        await replay(jetstream, letter.sequence)
        await eventually(lambda: program.began("poison") == attempts.LIMIT + 2, 30)
        await connection.close()


@pytest.mark.heavy
async def test_events_that_wait_for_long_use_up_no_attempts(run_kit, jetstream: JetStreamContext, eventually) -> None:
    await short_ack_wait(jetstream, "registry", v1.FeedbackRecorded)
    calls: list[str] = []
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        if event.comment != "waits":
            return
        calls.append(event.generation_id)
        if len(calls) < 3:
            raise asyncpg.ReadOnlySQLTransactionError("the database is read-only")
        if len(calls) < 12:
            raise NotYet("too early", after=0.02 if len(calls) < 8 else 1.0)

    async with run_kit(handlers):
        await publish(jetstream, "patient", "waits")
        await eventually(lambda: len(calls) >= 8, 30)
    async with run_kit(handlers) as service:  # stopped in the middle, too
        await eventually(lambda: len(calls) == 12, 30)

        async def done() -> bool:
            async with service.db.acquire() as connection:
                return bool(await connection.fetchval("select true from inbox where event_id = 'patient'"))

        await eventually(done)
        async with service.db.acquire() as connection:
            assert await connection.fetch("select * from attempts") == []


async def test_a_short_handler_that_waits_longer_than_its_ack_wait_keeps_its_message(
    run_kit, jetstream: JetStreamContext, eventually
) -> None:
    ack_wait = 3.0  # renewed at half of it: a loaded machine may be late by a second
    await short_ack_wait(jetstream, "registry", v1.FeedbackRecorded, ack_wait)
    calls: list[str] = []
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        if event.generation_id == "long":
            calls.append("began")
            await asyncio.sleep(ack_wait + 1.5)
            calls.append("ended")

    [(name, binding)] = handlers.bindings.items()  # the service knows the durable as it is
    handlers.bindings[name] = replace(binding, consumer=replace(binding.consumer, ack_wait=timedelta(seconds=ack_wait)))

    async def acknowledged() -> bool:
        return (await durable_of(jetstream, "registry", v1.FeedbackRecorded)).idle

    async with run_kit(handlers):
        await eventually(acknowledged)  # what the test before left
        before = await durable_of(jetstream, "registry", v1.FeedbackRecorded)
        await publish(jetstream, "long")
        await eventually(lambda: "ended" in calls)
        await eventually(acknowledged)
    assert calls == ["began", "ended"]
    assert (await durable_of(jetstream, "registry", v1.FeedbackRecorded)).deliveries == before.deliveries + 1


class Training:
    """Long work whose worker disappears: its lease runs out without a release."""

    def __init__(self) -> None:
        self.handlers: Handlers[Any] = Handlers("trainer")
        self.begun = 0
        self.ended: list[str] = []
        self.handlers.long(
            v1.TrainingRequested, lease=lambda event, envelope: f"job:{event.job_id}", give_up=self.give_up
        )(self.train)

    async def train(self, event: v1.TrainingRequested, work: LeasedTask, service: Any) -> None:
        self.begun += 1
        async with work.finish():
            self.ended.append("finished")

    async def give_up(self, event: v1.TrainingRequested, reason: str, work: LeasedTask, service: Any) -> None:
        async with work.finish():
            self.ended.append(reason)


@pytest.mark.parametrize(("killed", "ended"), [(4, "finished"), (5, attempts.given_up(5))])
async def test_long_work_is_given_up_after_five_killed_workers(
    run_kit, jetstream: JetStreamContext, eventually, killed: int, ended: str
) -> None:
    training = Training()
    job = f"killed-{killed}"
    async with run_kit(training.handlers, lease_seconds=1.0) as service:
        async with service.db.acquire() as connection:
            for number in range(killed):
                taken = await lease.acquire(connection, f"job:{job}", f"killed-{number}", timedelta(0))
                assert taken == lease.Taken(number + 1, number)
        body = v1.TrainingRequested(domain="d", job_id=job).to_json()
        await jetstream.publish("lorafleet.v1.training.requested", body, headers={"ce-id": job})
        await eventually(lambda: training.ended)
        assert training.ended == [ended]
        assert training.begun == (killed < 5)


async def test_progress_answers_and_lost_leases_are_no_killed_workers(run_kit) -> None:
    ttl = timedelta(0)
    async with run_kit(Handlers("registry")) as service, service.db.acquire() as connection:

        async def take(holder: str) -> lease.Taken:
            taken = await lease.acquire(connection, "job", holder, ttl)
            assert taken is not None
            return taken

        await take("a")
        assert (await take("b")).unanswered == 1
        third = await take("c")
        assert third.unanswered == 2
        await lease.progress(connection, "job", third.token)
        fourth = await take("d")
        assert fourth.unanswered == 1  # c itself disappeared after its progress
        await lease.release(connection, "job", fourth.token)
        fifth = await take("e")
        assert fifth.unanswered == 0
        assert (await take("f")).unanswered == 1
        await lease.survived(connection, "job", fifth.token)  # e was alive after all
        assert (await take("g")).unanswered == 1
        assert (await take("g")).unanswered == 1  # the same process again
