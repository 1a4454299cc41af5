"""Prometheus metrics of training, beside the kit's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import Counter, Gauge

from fleet_kit import tasks
from fleet_kit.faults import TRANSIENT
from services.trainer.jobs.domain import JobState
from services.trainer.parts import TrainerService
from services.trainer.reports import store
from services.trainer.training.protocol import Stepped, Validated

log = structlog.get_logger()

STEPS = Counter("lorafleet_training_steps_total", "Optimizer steps taken by this worker")
TOKENS = Counter("lorafleet_training_tokens_total", "Tokens trained by this worker, without padding")
SECONDS = Counter("lorafleet_training_step_seconds_total", "Time that those steps took")
VALIDATIONS = Counter("lorafleet_training_validations_total", "Measures of a validation split by this worker")
LOSS = Gauge("lorafleet_training_loss", "Loss of the newest step of this worker's job")
VALIDATION_LOSS = Gauge("lorafleet_training_validation_loss", "Newest validation loss of this worker's job")
PEAK_MEMORY = Gauge("lorafleet_training_peak_memory_bytes", "Memory of this worker's training process at its highest")
JOBS = Gauge("lorafleet_training_jobs", "Jobs in the database by state", ["state"])
BUILDS = Gauge("lorafleet_trainer_builds", "Builds of data sets that wait or run", ["state"])
STORED = Gauge(
    "lorafleet_trainer_stored_bytes", "Bytes of the trainer in the object store, by what they are for", ["what"]
)
STREAMS = Gauge("lorafleet_training_streams", "Readers of a job's course over server-sent events")

_COUNTED_EVERY = 5.0


def observe_step(step: Stepped) -> None:
    """A step was taken."""
    STEPS.inc()
    TOKENS.inc(step.tokens)
    SECONDS.inc(step.seconds)
    LOSS.set(step.loss)
    PEAK_MEMORY.set(step.peak_memory_bytes)


def observe_validation(validated: Validated) -> None:
    """The validation split was measured."""
    VALIDATIONS.inc()
    VALIDATION_LOSS.set(validated.loss)


@asynccontextmanager
async def counting(service: TrainerService) -> AsyncIterator[None]:
    """Jobs in each state are counted now and then, as long as this is open."""
    task = asyncio.create_task(_keep_counting(service))
    try:
        yield
    finally:
        await tasks.end(task)


async def _keep_counting(service: TrainerService) -> None:
    while True:
        try:
            async with service.db.acquire(timeout=5) as connection:
                counted = await store.count_jobs(connection)
                builds = await store.count_builds(connection)
                stored = await store.count_stored(connection)
        except TRANSIENT as error:
            log.warning("jobs could not be counted", reason=repr(error))
        else:
            for state in JobState:
                JOBS.labels(state.value).set(counted.get(state.value, 0))
            for waiting in ("queued", "running"):
                BUILDS.labels(waiting).set(builds.get(waiting, 0))
            for what, held in stored.items():
                STORED.labels(what).set(held)
        await asyncio.sleep(_COUNTED_EVERY)
