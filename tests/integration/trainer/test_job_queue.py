"""The queue of training jobs on the real servers: tickets on the bus, the order in PostgreSQL, trainings pretended."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from fleet_cli.stack.process import Command, Supervised
from fleet_events import v1
from fleet_events.topology import durable_name, row_of
from fleet_kit import db
from fleet_kit.transaction import Transaction
from services.trainer.jobs import domain, job_queue, store
from tests.conftest import RunningService, RunService
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import Bench, Upstream, eventually
from tests.integration.trainer.pretended_trainer import ENDED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROW = row_of(v1.TrainingQueued)
DURABLE = durable_name(ROW.consumed_by[0], ROW)
ROWS = [{"prompt": f"What is gate {n}?", "completion": f"Gate {n} opens at dusk."} for n in range(8)]

RunWorker = Callable[..., AbstractAsyncContextManager[RunningService]]


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pretended trainings note that they run."""
    return tmp_path_factory.mktemp("pretended")


@pytest.fixture(scope="module")
def run_worker(
    run_service: RunService, tiny_model: Path, pretended: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunWorker:
    """`async with run_worker(seconds=0.1) as trainer:` a trainer whose trainings are pretended and take so long."""

    @asynccontextmanager
    async def run(*, seconds: float = 0.05, **changes: str) -> AsyncIterator[RunningService]:
        values = {
            "LORAFLEET_BASE_MODEL": str(tiny_model),
            "LORAFLEET_BASE_MODEL_NAME": "tiny-llama",
            "LORAFLEET_CACHE_DIR": str(tmp_path_factory.mktemp("trainer")),
            "LORAFLEET_LEASE_SECONDS": "3",
            "LORAFLEET_OPEN_JOBS_PER_DOMAIN": "10000",
            "PRETENDED_FOLDER": str(pretended),
            "PRETENDED_SECONDS": str(seconds),
        }
        async with run_service("trainer", ready=False, **{**values, **changes}) as worker:
            single = worker.single
            command = Command(
                (sys.executable, "-m", "tests.integration.trainer.pretended_trainer"), environment=single.env
            )
            first = single.process
            single.process = Supervised(first.name, command, logs=first.log.parent, run=first._pid_file.parent)
            await worker.start()

            async def opened() -> bool:
                # The servers may be ready before what a request is judged by.
                return (await worker.client.post("/v1/jobs", json={})).status_code == 422

            await eventually(opened)
            yield worker

    return run


@pytest.fixture
async def worker(run_worker: RunWorker) -> AsyncIterator[RunningService]:
    async with run_worker() as running:
        yield running


@pytest.fixture
async def database(service_env: Callable[..., dict[str, str]]) -> AsyncIterator[Any]:
    """A connection of the trainer's."""
    pool = db.connect_pool("trainer", service_env("trainer")["LORAFLEET_DATABASE_URL"], 1)
    async with pool, pool.acquire() as connection:
        yield connection


async def dataset_of(bench: Bench) -> str:
    """A data set that every job of the test trains on, so that no attempt has to build one."""
    dataset_id, _ = await built(bench, await upload(bench, "gates.jsonl", as_jsonl(ROWS)))
    return dataset_id


async def queue_behind(database: Any, dataset_id: str, domain_name: str, priorities: list[int]) -> None:
    """Queue jobs while no trainer runs, as its HTTP interface does."""
    begun = datetime.now(UTC)
    async with database.transaction():
        tx = Transaction("trainer", database)
        for number, priority in enumerate(priorities):
            request = v1.TrainingRequested(domain=domain_name, dataset_id=dataset_id, priority=priority)
            job = domain.queue(request, f"{domain_name}-{number}", begun + timedelta(milliseconds=number))
            assert await store.add_job(database, replace(job, targets=("q_proj",)))
            await tx.emit(domain.queued(job), entity=job.job_id)


async def tickets(jetstream: JetStreamContext) -> ConsumerInfo:
    return await jetstream.consumer_info(ROW.stream.name, DURABLE)


async def jobs_of(database: Any, domain_name: str) -> list[domain.Job]:
    """In the order in which they are due."""
    rows = await database.fetch(
        "select * from jobs where domain = $1 order by priority desc, created_at, job_id", domain_name
    )
    return [store.job_of(row) for row in rows]


def all_in(*states: domain.JobState) -> Callable[[list[domain.Job]], bool]:
    return lambda jobs: all(job.state in states for job in jobs)


async def until_all(database: Any, domain_name: str, timeout: float, *states: domain.JobState) -> list[domain.Job]:
    async def check() -> Any:
        found = await jobs_of(database, domain_name)
        return found if all_in(*states)(found) else None

    return list(await eventually(check, timeout))


async def answered_later(worker: RunningService) -> float:
    """Tickets that this worker has answered with "later"."""
    text = (await worker.client.get("/metrics")).text
    found = re.findall(rf'lorafleet_events_handled_total{{consumer="{DURABLE}",outcome="retry"}} (\S+)', text)
    return sum(map(float, found))


@pytest.mark.requirement("TP-4.2")
@pytest.mark.requirement("TP-4.3")
async def test_four_workers_start_a_thousand_jobs_by_priority_and_leave_no_message_for_later(
    run_worker: RunWorker, jetstream: JetStreamContext, database: Any
) -> None:
    name, chance = "thousand", random.Random(12)
    async with run_worker() as first:
        dataset_id = await dataset_of(Bench(first, Upstream(jetstream), None, name))  # type: ignore[arg-type]
    await queue_behind(database, dataset_id, name, [chance.randint(0, 9) for _ in range(1000)])
    before = (await tickets(jetstream)).delivered.consumer_seq
    async with AsyncExitStack() as stack:
        workers = await asyncio.gather(*(stack.enter_async_context(run_worker()) for _ in range(4)))
        jobs = await until_all(database, name, 500, domain.JobState.FAILED)
        await eventually(lambda: _none_left(jetstream), 30)
        later = [await answered_later(one) for one in workers]
    delivered = (await tickets(jetstream)).delivered.consumer_seq - before

    assert {job.error for job in jobs} == {ENDED}
    assert {job.attempts for job in jobs} == {1}
    assert delivered == 1000, "each ticket was delivered once"
    assert later == [0.0] * 4
    due = {job.job_id: place for place, job in enumerate(jobs)}
    begun = sorted(jobs, key=lambda job: job.history[0].started_at)
    late = [place - due[job.job_id] for place, job in enumerate(begun)]
    assert max(map(abs, late)) < len(workers), "only jobs that are claimed at the same moment may change places"

    by_worker: dict[str, list[domain.PastAttempt]] = {}
    for job in begun:
        by_worker.setdefault(job.history[0].worker, []).append(job.history[0])
    assert len(by_worker) == 4
    gaps = sorted(
        (then.started_at - now.ended_at).total_seconds() * 1000
        for attempts in by_worker.values()
        for now, then in pairwise(attempts)
        if now.ended_at is not None
    )
    median, p99 = statistics.median(gaps), gaps[int(0.99 * len(gaps))]
    print(f"from free worker to claimed job: median {median:.1f} ms, p99 {p99:.1f} ms, n = {len(gaps)}")
    # 31 to 78 ms where this was written. The bounds are for machines that do much else, and far below any polling.
    assert median < 250
    assert p99 < 2000


async def _none_left(jetstream: JetStreamContext) -> bool:
    found = await tickets(jetstream)
    return not (found.num_pending or found.num_ack_pending)


@pytest.mark.requirement("TP-1.3")
@pytest.mark.requirement("TP-4.3")
@pytest.mark.parametrize("seed", [1, 2])
async def test_no_job_is_lost_or_trained_twice_at_once_whatever_users_and_kills_do(
    run_worker: RunWorker, jetstream: JetStreamContext, database: Any, pretended: Path, seed: int
) -> None:
    name, chance = f"random{seed}", random.Random(seed)
    known: list[str] = []
    kills = 0
    async with AsyncExitStack() as stack:
        workers = await asyncio.gather(*(stack.enter_async_context(run_worker(seconds=1.5)) for _ in range(3)))
        dataset_id = await dataset_of(Bench(workers[0], Upstream(jetstream), None, name))  # type: ignore[arg-type]
        client = workers[0].client  # it is never killed: users need somebody to ask
        for _ in range(120):
            what = chance.choices(
                ("submit", "pause", "resume", "cancel", "retry", "kill", "stop"), (40, 15, 15, 10, 10, 8, 2)
            )[0]
            if what == "submit" or not known:
                body = {"domain": name, "datasetId": dataset_id, "priority": chance.randint(0, 9)}
                answer = await client.post("/v1/jobs", json=body)
                assert answer.status_code == 202, answer.text
                known.append(answer.json()["job_id"])
            elif what == "kill":
                struck = chance.choice(workers[1:])
                if struck.single.process.pid is not None:  # after the last one it is being started again
                    await struck.kill()
                    kills += 1
            elif what == "stop":
                await workers[1].stop()
                await workers[1].start()
            else:
                answer = await client.post(f"/v1/jobs/{chance.choice(known)}/{what}")
                assert answer.status_code in (202, 409), answer.text
            await asyncio.sleep(chance.uniform(0, 0.2))

        async def all_ended() -> Any:
            for job in await jobs_of(database, name):
                if job.state is domain.JobState.PAUSED:
                    await client.post(f"/v1/jobs/{job.job_id}/resume")
            jobs = await jobs_of(database, name)
            return jobs if all(job.state.final for job in jobs) else None

        jobs = await eventually(all_ended, 240)
        await eventually(lambda: _none_left(jetstream), 60)
    lost = sum(one.outcome is domain.AttemptOutcome.LOST for job in jobs for one in job.history)
    print(f"{len(jobs)} jobs, {kills} kills, {lost} attempts lost with their workers")
    assert kills > 0
    assert sorted(job.job_id for job in jobs) == sorted(known)
    assert {job.error for job in jobs if job.state is domain.JobState.FAILED} == {ENDED}
    assert not (pretended / "twice").exists(), (pretended / "twice").read_text()
    for job in jobs:
        assert [one.number for one in job.history if one.worker] == list(range(1, job.attempts + 1)), job
        assert all(one.ended_at is not None for one in job.history), job
        assert all(now.ended_at <= then.started_at for now, then in pairwise(job.history)), job  # type: ignore[operator]
    assert not [reason for reason in await Upstream(jetstream).dead() if name in reason]


async def test_a_ticket_waits_for_a_job_whose_row_somebody_has_and_an_ended_job_leaves_a_spare_one(
    worker: RunningService, jetstream: JetStreamContext, database: Any
) -> None:
    name = "locked"
    bench = Bench(worker, Upstream(jetstream), None, name)  # type: ignore[arg-type]
    dataset_id = await dataset_of(bench)
    async with database.transaction():
        request = v1.TrainingRequested(domain=name, dataset_id=dataset_id)
        job = replace(domain.queue(request, f"{name}-1", datetime.now(UTC)), targets=("q_proj",))
        await store.add_job(database, job)
    async with database.transaction():
        await store.locked(database, job.job_id)
        # A ticket arrives meanwhile. Were it spent now, the job would have none.
        await bench.upstream.publish(domain.queued(job))
        await asyncio.sleep(1)
        assert (await tickets(jetstream)).num_ack_pending == 1
    assert (await bench.until(job.job_id, "failed"))["attempts"] == 1
    await bench.upstream.publish(domain.queued(job))
    await eventually(lambda: _none_left(jetstream), 30)
    assert (await bench.job(job.job_id))["attempts"] == 1


async def test_a_suspended_worker_loses_its_job_to_another_and_writes_nothing_more_of_it(
    run_worker: RunWorker, jetstream: JetStreamContext, database: Any
) -> None:
    name = "suspended"
    async with run_worker(seconds=0.01) as first:
        dataset_id = await dataset_of(Bench(first, Upstream(jetstream), None, name))  # type: ignore[arg-type]
    async with run_worker(seconds=1200) as slow:
        bench = Bench(slow, Upstream(jetstream), None, name)  # type: ignore[arg-type]
        job_id = await bench.submit(datasetId=dataset_id)
        await eventually(lambda: bench.upstream.published(v1.TrainingStarted, job_id))  # it holds no lock then
        process = slow.single.process.pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        try:
            async with run_worker(seconds=0.01) as quick:
                bench.trainer = quick
                ended = await bench.until(job_id, "failed", timeout=90)
                os.kill(process, signal.SIGCONT)
                await eventually(lambda: _none_left(jetstream), 60)
                assert await bench.job(job_id) == ended
        finally:
            os.kill(process, signal.SIGCONT)
    assert [(one["outcome"]) for one in ended["history"]] == ["lost", "failed"]
    assert len({one["worker"] for one in ended["history"]}) == 2
    assert len(await bench.upstream.published(v1.TrainingFailed, job_id)) == 1


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


async def test_a_job_that_meets_a_defect_fails_with_it_though_its_ticket_becomes_a_dead_letter(
    run_worker: RunWorker, jetstream: JetStreamContext
) -> None:
    async with run_worker(PRETENDED_DEFECT="no such gate", LORAFLEET_SWEEP_SECONDS="0.5") as trainer:
        bench = Bench(trainer, Upstream(jetstream), None, "defect")  # type: ignore[arg-type]
        job_id = await bench.submit(datasetId=await dataset_of(bench))
        failed = await bench.until(job_id, "failed", timeout=120)
        await eventually(lambda: _none_left(jetstream), 60)
        later = await answered_later(trainer)
    assert failed["error"].endswith("without a new checkpoint; last: RuntimeError('no such gate')")
    assert [one["outcome"] for one in failed["history"]] == ["crashed"] * 5 + ["failed"]
    assert later == domain.MAX_STALLED - 1
    assert [one for one in await bench.upstream.dead() if "no such gate" in one]


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
        await Transaction("trainer", database).emit(domain.queued(job), entity=job.job_id)
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
