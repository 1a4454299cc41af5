"""HTTP in: the collection of what nothing needs any more."""

from __future__ import annotations

from fastapi import APIRouter

from fleet_kit.collection import Adoption, Collection, FleetAdmin, adopted, refusals_as_problems
from services.evaluator.access import Running
from services.evaluator.garbage import Garbage, collect

router = APIRouter(prefix="/v1", tags=["keeping"])


@router.post("/gc", summary="List, or delete, what retention rules let go and what nothing refers to")
async def collect_garbage(body: Collection, _caller: FleetAdmin, service: Running) -> Garbage:
    with refusals_as_problems():
        return await collect(service, apply=body.apply, at_most=body.at_most)


@router.post("/gc/adoption", summary="Make the evaluator's objects this database's own")
async def adopt_objects(_caller: FleetAdmin, service: Running) -> Adoption:
    """After a restored backup, or where nothing tells whose they are: what this database does not refer to may go."""
    return await adopted(service.db, service.blobs)
