"""Settings of the wing that accepts jobs."""

from typing import Annotated

from pydantic import Field

from lora_core.base_model import SLOT_RANK
from services.trainer.datasets.settings import DatasetSettings


class JobSettings(DatasetSettings):
    """What jobs need beyond what their data sets need."""

    flush_seconds: float = Field(default=1.0, gt=0)
    """Time between two writes of what a job logged."""
    open_jobs_per_domain: int = Field(default=200, ge=1)
    """Jobs of one domain that may wait, run or rest."""
    training_hours_per_month: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Hours that the steps of a domain's jobs may take in a month of UTC, by domain (JSON); `*` is each other one."""
    max_rank: int = Field(default=SLOT_RANK, ge=1)
    """Largest rank that a training may ask for: what inference's slots hold, which read the same variable."""
