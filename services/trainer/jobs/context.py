"""The running trainer as the wing of jobs takes it."""

from typing import Annotated, Protocol, TypeAlias

from fastapi import Depends

from fleet_kit.http import dependency
from services.trainer.context import Context
from services.trainer.datasets.context import DatasetParts
from services.trainer.jobs.request_checks import RequestChecks
from services.trainer.jobs.settings import JobSettings


class JobParts(DatasetParts, Protocol):
    """The trainer's parts that jobs need."""

    @property
    def checks(self) -> RequestChecks:
        """What requests are checked against."""
        ...


JobContext: TypeAlias = Context[JobSettings, JobParts]
Jobs = Annotated[JobContext, Depends(dependency(Context[JobSettings, JobParts]))]
