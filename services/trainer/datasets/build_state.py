"""A build's life as pure transitions: a requested recipe, until it is a data set or refused."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.trainer.datasets.build_fault import BuildFault
from services.trainer.datasets.recipe import DataRecipe

MAX_ATTEMPTS = 3
"""Workers that may die over one build before it is given up."""


class BuildState(StrEnum):
    """Where a build stands. The last two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (BuildState.SUCCEEDED, BuildState.FAILED)


@dataclass(frozen=True)
class DatasetBuild:
    """One recipe and what came of it. `version` is that of the data set's name."""

    build_id: str
    recipe: DataRecipe
    requested_by: str
    requested_domains: tuple[str, ...]
    """What the caller's token reached: calls of other services for this build are made for these."""
    created_at: datetime
    state: BuildState = BuildState.QUEUED
    attempts: int = 0
    dataset_id: str | None = None
    version: int | None = None
    faults: tuple[BuildFault, ...] = ()
    finished_at: datetime | None = None


def take_up(build: DatasetBuild) -> DatasetBuild:
    """A worker begins."""
    return replace(build, state=BuildState.RUNNING, attempts=build.attempts + 1)


def give_back(build: DatasetBuild) -> DatasetBuild:
    """Its worker stops for a fault of the surroundings; the build waits again, and the attempt does not count."""
    return replace(build, state=BuildState.QUEUED, attempts=max(0, build.attempts - 1))


def succeed(build: DatasetBuild, dataset_id: str, version: int, now: datetime) -> DatasetBuild:
    """The data set is stored."""
    return replace(build, state=BuildState.SUCCEEDED, dataset_id=dataset_id, version=version, finished_at=now)


def fail(build: DatasetBuild, faults: tuple[BuildFault, ...], now: datetime) -> DatasetBuild:
    """Nothing came of it, and nothing is left of it."""
    return replace(build, state=BuildState.FAILED, faults=faults, finished_at=now)
