"""The running trainer as the wing of running jobs takes it."""

from typing import Protocol, TypeAlias

from services.trainer.context import Context
from services.trainer.jobs.context import JobParts
from services.trainer.runs.launchers import Launcher
from services.trainer.runs.settings import RunSettings


class RunParts(JobParts, Protocol):
    """The trainer's parts that running a job needs."""

    @property
    def launcher(self) -> Launcher:
        """Where trainings run."""
        ...

    @property
    def worker(self) -> str:
        """Names this process in a job's history."""
        ...


RunContext: TypeAlias = Context[RunSettings, RunParts]
