"""The running trainer as the wing of data sets takes it."""

import asyncio
from typing import Annotated, Protocol, TypeAlias

from fastapi import Depends

from fleet_kit.http import dependency
from services.trainer.context import Context
from services.trainer.datasets.settings import DatasetSettings


class DatasetParts(Protocol):
    """The trainer's parts that data sets need."""

    @property
    def builds(self) -> asyncio.Semaphore:
        """Places for builds of data sets."""
        ...


DatasetContext: TypeAlias = Context[DatasetSettings, DatasetParts]
Datasets = Annotated[DatasetContext, Depends(dependency(Context[DatasetSettings, DatasetParts]))]
