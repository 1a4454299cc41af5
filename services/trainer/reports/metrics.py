"""Prometheus metrics of what the database counts: jobs, builds, stored bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import Gauge

from fleet_kit import tasks
from fleet_kit.faults import TRANSIENT
from services.trainer.datasets.answers.answer import State
from services.trainer.datasets.store.answer_feedback import count_feedback
from services.trainer.jobs.context import JobContext
from services.trainer.jobs.domain import JobState
from services.trainer.reports import store

log = structlog.get_logger()

JOBS = Gauge("lorafleet_training_jobs", "Jobs in the database by state", ["state"])
FEEDBACK = Gauge(
    "lorafleet_trainer_answer_feedback",
    "Feedback on answers by what became of it: waiting for the answer, used, unusable",
    ["state"],
)
BUILDS = Gauge("lorafleet_trainer_builds", "Builds of data sets that wait or run", ["state"])
STORED = Gauge(
    "lorafleet_trainer_stored_bytes", "Bytes of the trainer in the object store, by what they are for", ["what"]
)

_COUNTED_EVERY = 5.0


@asynccontextmanager
async def counting(service: JobContext) -> AsyncIterator[None]:
    """Jobs in each state are counted now and then, as long as this is open."""
    task = asyncio.create_task(_keep_counting(service))
    try:
        yield
    finally:
        await tasks.end(task)


async def _keep_counting(service: JobContext) -> None:
    while True:
        try:
            async with service.db.acquire(timeout=5) as connection:
                counted = await store.count_jobs(connection)
                builds = await store.count_builds(connection)
                stored = await store.count_stored(connection)
                feedback = await count_feedback(connection)
        except TRANSIENT as error:
            log.warning("jobs_not_counted", reason=repr(error))
        else:
            for state in JobState:
                JOBS.labels(state.value).set(counted.get(state.value, 0))
            for waiting in ("queued", "running"):
                BUILDS.labels(waiting).set(builds.get(waiting, 0))
            for one in State:
                FEEDBACK.labels(one.value).set(feedback.get(one.value, 0))
            for what, held in stored.items():
                STORED.labels(what).set(held)
        await asyncio.sleep(_COUNTED_EVERY)
