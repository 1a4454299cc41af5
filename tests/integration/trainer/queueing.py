"""Workers of one queue with a pretended training, and jobs that wait for them."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
from services.trainer.jobs import domain, store
from tests.conftest import RunningService, RunService
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import Bench, eventually

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
        await tx.flush()


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


async def none_left(jetstream: JetStreamContext) -> bool:
    found = await tickets(jetstream)
    return not (found.num_pending or found.num_ack_pending)
