"""Settings of the wing that accepts jobs."""

from pydantic import Field

from lora_core.base_model import SLOT_RANK
from services.trainer.datasets.settings import DatasetSettings


class JobSettings(DatasetSettings):
    """What jobs need beyond what their data sets need."""

    flush_seconds: float = Field(default=1.0, gt=0)
    """Time between two writes of what a job logged."""
    open_jobs_per_domain: int = Field(default=200, ge=1)
    """Jobs of one domain that may wait, run or rest."""
    max_rank: int = Field(default=SLOT_RANK, ge=1)
    """Largest rank that a training may ask for: what inference's slots hold, which read the same variable."""
