"""HTTP in: the collection of what nothing needs any more."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from fleet_kit.auth import Caller, require
from fleet_kit.http import dependency
from services.trainer.context import Context
from services.trainer.runs.context import RunContext, RunParts
from services.trainer.runs.garbage import Garbage, collect
from services.trainer.runs.settings import RunSettings

router = APIRouter(prefix="/v1", tags=["keeping"])

FleetAdmin = Annotated[Caller, Depends(require("fleet:admin"))]
Runs = Annotated[RunContext, Depends(dependency(Context[RunSettings, RunParts]))]


class Collection(BaseModel):
    """How to collect garbage."""

    model_config = ConfigDict(extra="forbid")

    apply: bool = Field(default=False, description="False lists what would go and changes nothing")


@router.post("/gc", summary="List, or delete, what retention rules let go and what nothing refers to")
async def collect_garbage(body: Collection, _caller: FleetAdmin, trainer: Runs) -> Garbage:
    return await collect(trainer, apply=body.apply)
