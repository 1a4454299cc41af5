"""HTTP in: which versions are kept, and the collection of what is not."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter

from fleet_kit.auth import Caller
from fleet_kit.collection import Adoption, Collection, FleetAdmin, adopted, refusals_as_problems
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


@router.post("/gc", summary="List, or delete, what retention rules let go and what nothing refers to")
async def collect_garbage(body: Collection, _caller: FleetAdmin, service: ThisService) -> Garbage:
    with refusals_as_problems():
        return await collect(service, apply=body.apply, at_most=body.at_most)


@router.post("/gc/adoption", summary="Make the registry's objects this database's own")
async def adopt_objects(_caller: FleetAdmin, service: ThisService) -> Adoption:
    """After a restored backup, or where nothing tells whose they are: what this database does not refer to may go."""
    return await adopted(service.db, service.blobs)


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
