"""HTTP in: the collection of what nothing needs any more."""

from typing import Annotated

from fastapi import APIRouter, Depends

from fleet_kit.collection import Adoption, Collection, FleetAdmin, adopted, refusals_as_problems
from fleet_kit.http import dependency
from services.trainer.context import Context
from services.trainer.runs.context import RunContext, RunParts
from services.trainer.runs.garbage import Garbage, collect
from services.trainer.runs.settings import RunSettings

router = APIRouter(prefix="/v1", tags=["keeping"])

Runs = Annotated[RunContext, Depends(dependency(Context[RunSettings, RunParts]))]


@router.post("/gc", summary="List, or delete, what retention rules let go and what nothing refers to")
async def collect_garbage(body: Collection, _caller: FleetAdmin, trainer: Runs) -> Garbage:
    with refusals_as_problems():
        return await collect(trainer, apply=body.apply, at_most=body.at_most)


@router.post("/gc/adoption", summary="Make the trainer's objects this database's own")
async def adopt_objects(_caller: FleetAdmin, trainer: Runs) -> Adoption:
    """After a restored backup, or where nothing tells whose they are: what this database does not refer to may go."""
    return await adopted(trainer.db, trainer.blobs)
