"""HTTP in: which versions are kept, and the collection of what is not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from services.registry import repository
from services.registry.access import Writer, visible
from services.registry.adapter_view import AdapterDetails
from services.registry.details import details_of
from services.registry.garbage import Garbage, collect
from services.registry.keeping import hold
from services.registry.parts import RegistryService, ThisService
from services.registry.schemas import Reason
from services.registry.transition import Act, NotAllowed

router = APIRouter()

FleetAdmin = Annotated[Caller, Depends(require("fleet:admin"))]


class Collection(BaseModel):
    """How to collect garbage."""

    model_config = ConfigDict(extra="forbid")

    apply: bool = Field(default=False, description="False lists what would go and changes nothing")


@router.post("/gc", summary="List, or delete, what retention rules let go and what nothing refers to")
async def collect_garbage(body: Collection, _caller: FleetAdmin, service: ThisService) -> Garbage:
    return await collect(service, apply=body.apply)


@router.post("/adapters/{adapter_id}/hold", summary="Keep a version's files against the retention rules")
async def hold_version(adapter_id: str, body: Reason, caller: Writer, service: ThisService) -> AdapterDetails:
    return await _hold(service, adapter_id, caller, body.reason, held=True)


@router.post("/adapters/{adapter_id}/unhold", summary="Leave a version's files to the retention rules")
async def unhold_version(adapter_id: str, body: Reason, caller: Writer, service: ThisService) -> AdapterDetails:
    return await _hold(service, adapter_id, caller, body.reason, held=False)


async def _hold(
    service: RegistryService, adapter_id: str, caller: Caller, reason: str, *, held: bool
) -> AdapterDetails:
    async with service.transaction() as tx:
        adapter = await visible(tx.connection, adapter_id, caller)
        family = await repository.lock(tx, adapter.submission.domain, adapter.submission.method)
        try:
            change = hold(family, adapter_id, Act(caller.subject, datetime.now(UTC), reason), held=held)
        except NotAllowed as error:
            raise Problem(409, "Not allowed", str(error), field=error.field) from error
        await repository.save(tx, family, change)
    return await details_of(service, change.family.find(adapter_id) or adapter)
