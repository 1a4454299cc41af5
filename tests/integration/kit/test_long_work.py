"""Long work is held by one worker at a time; a lost worker's work is taken up and its late writes are fenced."""

import asyncio
from typing import Any

import pytest

from fleet_events import v1
from fleet_kit.errors import LeaseLost
from fleet_kit.handlers import Handlers
from fleet_kit.leased_task import LeasedTask
from tests.integration.kit.conftest import durable_of

SUBJECT = "lorafleet.v1.training.requested"
pytestmark = pytest.mark.integration


class Worker:
    """A trainer whose training is a wait."""

    def __init__(self, seconds: float) -> None:
        self.handlers: Handlers[Any] = Handlers("trainer")
        self.seconds = seconds
        self.begun: list[tuple[str, int]] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.handlers.long(v1.TrainingRequested, lease=lambda event, envelope: f"job:{event.job_id}")(self.train)

    async def train(self, event: v1.TrainingRequested, work: LeasedTask, service: object) -> None:
        self.begun.append((event.job_id, work.token))
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(event.job_id)
            raise
        async with work.finish() as tx:
            await tx.emit(v1.TrainingFailed(job_id=event.job_id, reason="only a test"), event.job_id)
        self.finished.append(event.job_id)


async def request(jetstream, job: str) -> None:
    await jetstream.publish(SUBJECT, v1.TrainingRequested(domain="d", job_id=job).to_json(), headers={"ce-id": job})


async def test_work_longer_than_its_ack_wait_is_done_once(run_kit, jetstream, eventually) -> None:
    worker = Worker(seconds=3)
    async with run_kit(worker.handlers, lease_seconds=1.0):
        await request(jetstream, "patient")
        await eventually(lambda: worker.finished)

        async def acknowledged() -> bool:
            return (await durable_of(jetstream, "trainer", v1.TrainingRequested)).idle

        await eventually(acknowledged)
        assert worker.begun == [("patient", 1)]
    assert (await durable_of(jetstream, "trainer", v1.TrainingRequested)).deliveries == 1


async def test_work_of_a_stopped_worker_is_taken_up_at_once_by_another(run_kit, jetstream, eventually) -> None:
    slow = Worker(seconds=60)
    async with run_kit(slow.handlers, lease_seconds=1.0):
        await request(jetstream, "handed-over")
        await eventually(lambda: slow.begun)
    assert slow.cancelled == ["handed-over"]
    fast = Worker(seconds=0)
    async with run_kit(fast.handlers, lease_seconds=1.0):
        await eventually(lambda: fast.finished)
    assert [job for job, _ in fast.begun] == ["handed-over"]
    assert fast.begun[0][1] > slow.begun[0][1]


async def test_a_worker_that_lost_its_lease_is_cancelled_and_its_writes_are_fenced(
    run_kit, jetstream, eventually
) -> None:
    fenced: list[str] = []
    handlers: Handlers[Any] = Handlers("trainer")

    @handlers.long(v1.TrainingRequested, lease=lambda event, envelope: f"job:{event.job_id}")
    async def train(event: v1.TrainingRequested, work: LeasedTask, service: Any) -> None:
        if work.token > 1:
            async with work.finish():
                return
        async with service.db.acquire() as connection:  # somebody takes the lease over behind its back
            await connection.execute("update lease set token = token + 1, holder = 'thief' where name = $1", work.lease)
        try:
            async with work.transaction():
                pass
        except LeaseLost:
            fenced.append(event.job_id)
        async with service.db.acquire() as connection:
            await connection.execute("update lease set expires_at = now() where name = $1", work.lease)
        await asyncio.sleep(60)

    async with run_kit(handlers, lease_seconds=1.0) as service:
        await request(jetstream, "stolen")
        await eventually(lambda: fenced)

        async def done_by_the_next() -> bool:
            async with service.db.acquire() as connection:
                return bool(await connection.fetchval("select true from inbox where event_id = 'stolen'"))

        await eventually(done_by_the_next)
    assert fenced == ["stolen"]


@pytest.mark.heavy
async def test_a_second_lease_is_renewed_fences_writes_and_is_released_with_the_first(
    run_kit, jetstream, eventually
) -> None:
    seen: list[str] = []
    handlers: Handlers[Any] = Handlers("trainer")

    @handlers.long(v1.TrainingRequested, lease=lambda event, envelope: f"ticket:{event.job_id}")
    async def train(event: v1.TrainingRequested, work: LeasedTask, service: Any) -> None:
        async with work.transaction() as tx:
            assert await work.take(tx, f"thing:{event.job_id}")
        if event.job_id == "kept":
            async with work.transaction() as tx:
                before = await tx.connection.fetchval("select expires_at from lease where name = 'thing:kept'")
            await asyncio.sleep(1.5)
            async with work.finish() as tx:
                after = await tx.connection.fetchval("select expires_at from lease where name = 'thing:kept'")
                assert after > before
            seen.append("kept")
            return
        if seen[-1] == "kept":
            async with service.db.acquire() as connection:  # somebody takes the second lease over behind its back
                await connection.execute("update lease set token = 99, expires_at = now() where name = 'thing:robbed'")
            try:
                async with work.transaction():
                    pass
            except LeaseLost:
                seen.append("fenced")
            await asyncio.sleep(60)  # the heartbeat ends this
        async with work.finish():
            seen.append("ended")

    async with run_kit(handlers, lease_seconds=1.0) as service:
        await request(jetstream, "kept")
        await eventually(lambda: seen == ["kept"])

        async def released() -> bool:
            async with service.db.acquire() as connection:
                rows = await connection.fetch("select released from lease where name in ('thing:kept', 'ticket:kept')")
            return [row["released"] for row in rows] == [True, True]

        await eventually(released)
        await request(jetstream, "robbed")
        await eventually(lambda: seen == ["kept", "fenced", "ended"])
