"""A ticket names no job: what becomes of it when its job was lost, met a defect, or cannot be trained."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_kit import lease
from fleet_kit.db import connect_pool
from fleet_kit.transaction import Transaction
from services.trainer.jobs import domain, job_queue, store
from tests.conftest import RunningService
from tests.integration.trainer.conftest import Bench, Upstream, eventually
from tests.integration.trainer.pretended_trainer import ENDED
from tests.integration.trainer.queueing import (
    RunWorker,
    answered_later,
    dataset_of,
    none_left,
    until_all,
)
from tests.integration.trainer.queueing import database as database
from tests.integration.trainer.queueing import pretended as pretended
from tests.integration.trainer.queueing import run_worker as run_worker
from tests.integration.trainer.queueing import worker as worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


async def test_a_waiting_job_whose_ticket_was_lost_gets_another(
    run_worker: RunWorker, jetstream: JetStreamContext, database: Any
) -> None:
    name = "lost"
    async with run_worker() as first:
        dataset_id = await dataset_of(Bench(first, Upstream(jetstream), None, name))  # type: ignore[arg-type]
    async with database.transaction():
        for number in range(3):
            request = v1.TrainingRequested(domain=name, dataset_id=dataset_id)
            job = domain.queue(request, f"{name}-{number}", datetime.now(UTC))
            await store.add_job(database, job)  # of an earlier release: neither accepted nor with a ticket
    async with run_worker(LORAFLEET_SWEEP_SECONDS="0.5"):
        jobs = await until_all(database, name, 60, domain.JobState.FAILED)
    assert {(job.error, job.attempts) for job in jobs} == {(ENDED, 1)}
    assert all(job.targets for job in jobs), "accepted by whoever trained them"


@pytest.mark.heavy
async def test_a_job_that_meets_a_defect_fails_with_it_though_its_ticket_becomes_a_dead_letter(
    run_worker: RunWorker, jetstream: JetStreamContext
) -> None:
    async with run_worker(PRETENDED_DEFECT="no such gate", LORAFLEET_SWEEP_SECONDS="0.5") as trainer:
        bench = Bench(trainer, Upstream(jetstream), None, "defect")  # type: ignore[arg-type]
        job_id = await bench.submit(datasetId=await dataset_of(bench))
        failed = await bench.until(job_id, "failed", timeout=120)
        await eventually(lambda: none_left(jetstream), 60)
        later = await answered_later(trainer)
    assert failed["error"].endswith("without a new checkpoint; last: RuntimeError('no such gate')")
    assert [one["outcome"] for one in failed["history"]] == ["crashed"] * 5 + ["failed"]
    assert later == domain.MAX_STALLED - 1
    assert [one for one in await bench.upstream.dead() if "no such gate" in one]


@pytest.mark.heavy
async def test_a_job_whose_trainer_was_set_to_less_while_it_waited_fails_by_name(
    run_worker: RunWorker, jetstream: JetStreamContext, database: Any
) -> None:
    name = "smaller"
    async with run_worker() as first:
        bench = Bench(first, Upstream(jetstream), None, name)  # type: ignore[arg-type]
        dataset_id = await dataset_of(bench)
    async with database.transaction():
        request = v1.TrainingRequested(domain=name, dataset_id=dataset_id, hyperparameters=v1.Hyperparameters(rank=16))
        job = replace(domain.queue(request, f"{name}-1", datetime.now(UTC)), targets=("q_proj",))
        await store.add_job(database, job)
        tx = Transaction("trainer", database)
        await tx.emit(domain.queued(job), entity=job.job_id)
        await tx.flush()
    async with run_worker(LORAFLEET_MAX_RANK="8") as smaller:
        bench.trainer = smaller
        failed = await bench.until(job.job_id, "failed")
    assert "rank" in failed["error"]
    assert "at most 8" in failed["error"]


async def test_a_job_over_http_is_queued_by_one_event_and_is_the_same_again(
    worker: RunningService, jetstream: JetStreamContext
) -> None:
    bench = Bench(worker, Upstream(jetstream), None, "direct")  # type: ignore[arg-type]
    dataset_id = await dataset_of(bench)
    job_id = await bench.submit(datasetId=dataset_id, jobId="direct-1", priority=3)
    assert await bench.submit(datasetId=dataset_id, jobId="direct-1", priority=3) == job_id
    await bench.until(job_id, "failed")
    (queued,) = await bench.upstream.published(v1.TrainingQueued, job_id)
    assert (queued.domain, queued.priority) == ("direct", 3)
    assert await bench.upstream.published(v1.TrainingRequested, job_id) == []


async def test_a_job_of_a_worker_that_is_lost_is_not_waiting_until_its_lease_has_run_out(database: Any) -> None:
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute("update jobs set state = 'cancelled'")
        begun = datetime.now(UTC)
        for number, priority in enumerate([0, 9, 4]):
            request = v1.TrainingRequested(domain="lease", priority=priority)
            await store.add_job(database, domain.queue(request, f"j{number}", begun + timedelta(seconds=number)))

        async def lease(job_id: str, seconds: float) -> None:
            await database.execute(
                "insert into lease (name, holder, token, expires_at) values ($1, 'w', 1, now() + $2)"
                " on conflict (name) do update set expires_at = excluded.expires_at",
                job_queue.lease_of(job_id),
                timedelta(seconds=seconds),
            )

        async def next_id() -> str | None:
            found = await job_queue.next_job(database)
            return found.job_id if found else None

        assert await next_id() == "j1"
        await lease("j1", 60)
        assert await next_id() == "j2", "an earlier release's worker has j1, and has not taken it up yet"
        await database.execute("update jobs set state = 'running' where job_id = 'j1'")
        await database.execute("update jobs set state = 'paused' where job_id = 'j2'")
        assert await next_id() == "j0"
        await database.execute("update jobs set state = 'cancelled' where job_id = 'j0'")
        assert (await next_id(), await job_queue.any_waits(database)) == (None, False)
        await lease("j1", -1)
        assert (await next_id(), await job_queue.any_waits(database)) == ("j1", True)
        # Paused and resumed before its worker let go of the lease: it waits, and cannot be claimed yet.
        await lease("j2", 60)
        await database.execute("update jobs set state = 'cancelled' where job_id = 'j1'")
        await database.execute("update jobs set state = 'queued' where job_id = 'j2'")
        assert (await next_id(), await job_queue.any_waits(database)) == (None, True)
    finally:
        await transaction.rollback()


async def test_a_worker_that_claims_a_job_does_not_wait_for_the_transaction_of_its_holder(
    worker: RunningService,
) -> None:
    """The holder locks its lease and then the job's row, a claim the other way round: each would wait for the other."""
    url = worker.env["LORAFLEET_DATABASE_URL"]
    async with connect_pool("trainer", url, 2) as pool, pool.acquire() as holder, pool.acquire() as other:
        name = job_queue.lease_of("held-job")
        taken = await lease.acquire(holder, name, "holder", timedelta(seconds=60))
        assert taken is not None
        assert not await lease.in_use(other, name)
        async with asyncio.timeout(5), holder.transaction():
            await lease.check(holder, name, taken.token)
            assert await lease.in_use(other, name)
        assert not await lease.in_use(other, name)
        assert not await lease.in_use(other, "job:never-held")
