"""HTTP in: the decisions of humans about a version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from fastapi import APIRouter, Response

from fleet_events import v1
from fleet_events.topology import Row, row_of
from fleet_kit.auth import Caller
from fleet_kit.errors import Problem
from services.registry import domain, repository
from services.registry.access import Approver, Writer, visible
from services.registry.adapter_view import AdapterDetails
from services.registry.details import details_of
from services.registry.family import Adapter, Family
from services.registry.parts import RegistryService, ThisService
from services.registry.policy import Policy
from services.registry.schemas import Approval, Reason, Seen
from services.registry.store import versions
from services.registry.transition import Act, Change, NotAllowed
from services.registry.updating.recommend import recommend_update
from services.registry.withdrawal import WithdrawnAdapter, withdrawal_of

router = APIRouter(prefix="/adapters/{adapter_id}")

WITHDRAWAL: dict[int | str, dict[str, object]] = {
    202: {
        "model": WithdrawnAdapter,
        "description": "Recorded, but the bus or replicas could not be reached yet: see `withdrawal`",
    }
}

Transition: TypeAlias = Callable[[Family, Act, Policy], Change]
"""A transition of one version of the family, under its domain's policy; may raise NotAllowed."""


@router.post("/approve", summary="Approve a version; it is activated at once where the policy has activate_on_approval")
async def approve(adapter_id: str, body: Approval, caller: Approver, service: ThisService) -> AdapterDetails:
    if body.without_evaluation and not body.reason.strip():
        detail = "an approval without an evaluation needs a reason, which goes into the audit trail"
        raise Problem(422, "Invalid request", detail, field="reason")

    def transition(family: Family, act: Act, policy: Policy) -> Change:
        return domain.approve(family, adapter_id, act, policy, without_evaluation=body.without_evaluation)

    return await _decide(service, adapter_id, caller, body, transition, updates=True)


@router.post("/reject", summary="Reject a version for good, and take it out of service", responses=WITHDRAWAL)
async def reject(
    adapter_id: str, body: Reason, caller: Approver, service: ThisService, response: Response
) -> WithdrawnAdapter:
    def transition(family: Family, act: Act, policy: Policy) -> Change:
        return domain.reject(family, adapter_id, act, policy=policy)

    details = await _decide(service, adapter_id, caller, body, transition)
    return await _withdrawn(service, details, row_of(v1.Rejected), response)


@router.post("/activate", summary="Activate an approved version for its family")
async def activate(adapter_id: str, body: Reason, caller: Writer, service: ThisService) -> AdapterDetails:
    def transition(family: Family, act: Act, _policy: Policy) -> Change:
        return domain.activate(family, adapter_id, act)

    return await _decide(service, adapter_id, caller, body, transition)


@router.post("/deactivate", summary="Take a version out of service", responses=WITHDRAWAL)
async def deactivate(
    adapter_id: str, body: Reason, caller: Writer, service: ThisService, response: Response
) -> WithdrawnAdapter:
    def transition(family: Family, act: Act, _policy: Policy) -> Change:
        return domain.deactivate(family, adapter_id, act)

    details = await _decide(service, adapter_id, caller, body, transition)
    return await _withdrawn(service, details, row_of(v1.AdapterDeactivated), response)


async def _decide(
    service: RegistryService,
    adapter_id: str,
    caller: Caller,
    body: Reason,
    transition: Transition,
    *,
    updates: bool = False,
) -> AdapterDetails:
    async with service.transaction() as tx:
        adapter = await visible(tx.connection, adapter_id, caller)
        submission = adapter.submission
        family = await repository.lock(tx, submission.domain, submission.method)
        if body.seen is not None:
            _check_seen(await visible(tx.connection, adapter_id, caller), body.seen)
        policy = await versions.find_policy(tx.connection, submission.domain)
        # Once it is its turn: the trail is in the order of times.
        act = Act(caller.subject, datetime.now(UTC), body.reason)
        try:
            change = transition(family, act, policy)
        except NotAllowed as error:
            raise Problem(409, "Not allowed", str(error), field=error.field) from error
        await repository.save(tx, family, change)
        if updates:
            await recommend_update(tx, change.family, policy, act.at)
        decided = await versions.find_adapter(tx.connection, adapter_id)
    return await details_of(service, decided or adapter)


def _check_seen(adapter: Adapter, seen: Seen) -> None:
    """Raise a 409 `Problem` where another decision was made since a human looked."""
    if (adapter.status, adapter.active) != (seen.status, seen.active):
        now = f"{adapter.status}, {'active' if adapter.active else 'not active'}"
        detail = f"{adapter.adapter_id} is {now} by now, decided by {adapter.decided_by or 'nobody'}; look again"
        raise Problem(409, "Changed meanwhile", detail, field="seen")


async def _withdrawn(
    service: RegistryService, details: AdapterDetails, row: Row, response: Response
) -> WithdrawnAdapter:
    withdrawal = await withdrawal_of(service, details.adapter_id, row)
    if not withdrawal.complete:
        response.status_code = 202
    return WithdrawnAdapter(**dict(details), withdrawal=withdrawal)
