"""The running trainer as the wing of retraining takes it."""

from typing import Annotated, TypeAlias

from fastapi import Depends

from fleet_kit.http import dependency
from services.trainer.context import Context
from services.trainer.jobs.context import JobParts
from services.trainer.retraining.settings import RetrainingSettings

RetrainingContext: TypeAlias = Context[RetrainingSettings, JobParts]
Retraining = Annotated[RetrainingContext, Depends(dependency(Context[RetrainingSettings, JobParts]))]
