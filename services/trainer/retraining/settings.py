"""Settings of the wing that trains again without a person."""

from pydantic import Field

from services.trainer.runs.settings import RunSettings


class RetrainingSettings(RunSettings):
    """What retraining needs beyond what running a job needs."""

    retraining_seconds: float = Field(default=30.0, gt=0)
    """Time between two evaluations of the domains' retraining rules."""
