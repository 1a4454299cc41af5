"""HTTP in: the rollout of a family, and the decisions of humans about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias

from fastapi import APIRouter

from fleet_events.v1 import Method
from fleet_kit.auth import Caller
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from fleet_kit.transaction import Transaction
from services.registry import domain, repository
from services.registry.access import Reader, Writer
from services.registry.family import Family
from services.registry.parts import RegistryService, ThisService
from services.registry.rollout import transitions, verdict
from services.registry.rollout.rules import InvalidRules
from services.registry.rollout.schemas import Begin, FamilyRollouts, RolloutDetails
from services.registry.schemas import Reason
from services.registry.store import rollouts, versions
from services.registry.transition import Act, Change, NotAllowed, UnknownAdapter

router = APIRouter(prefix="/families/{family}/rollout")

EARLIER = 20
Transition: TypeAlias = Callable[[Family, Act], Change]


@router.get("", summary="The newest rollout of a family with its evidence, and earlier ones")
async def get_rollout(family: str, caller: Reader, service: ThisService) -> FamilyRollouts:
    async with service.db.acquire(timeout=5) as connection:
        await _visible(connection, family, caller)
        return await _view(connection, family)


@router.post("", summary="Roll out an approved version", status_code=201)
async def start_rollout(family: str, body: Begin, caller: Writer, service: ThisService) -> FamilyRollouts:
    async with service.transaction() as tx:
        name, method = await _visible(tx.connection, family, caller)
        held = await repository.lock(tx, name, method)
        rules = (await versions.find_policy(tx.connection, name)).delivery
        act = Act(caller.subject, datetime.now(UTC), body.reason)
        try:
            rules = replace(rules, mode=body.mode or rules.mode)
            change = transitions.start(held, body.candidate or transitions.newest(held), rules, act)
        except UnknownAdapter as error:
            raise Problem(404, "Unknown adapter", str(error), field="candidate") from error
        except NotAllowed as error:
            raise Problem(409, "Not allowed", str(error), field=error.field) from error
        except InvalidRules as error:
            raise Problem(
                409, "Not allowed", f"the domain's rules do not go with this mode: {error}", field="mode"
            ) from error
        await repository.save(tx, held, change)
        return await _view(tx.connection, family)


@router.post("/pause", summary="Keep the rollout at its step; it still goes back if the candidate is worse")
async def pause_rollout(family: str, body: Reason, caller: Writer, service: ThisService) -> FamilyRollouts:
    return await _move(service, family, caller, body.reason, transitions.pause)


@router.post("/resume", summary="Let a paused rollout go on")
async def resume_rollout(family: str, body: Reason, caller: Writer, service: ThisService) -> FamilyRollouts:
    return await _move(service, family, caller, body.reason, transitions.resume)


@router.post("/advance", summary="Give the candidate the next step's part of the callers now")
async def advance_rollout(family: str, body: Reason, caller: Writer, service: ThisService) -> FamilyRollouts:
    return await _move(service, family, caller, body.reason, transitions.advance)


@router.post("/promote", summary="Activate the candidate now")
async def promote_candidate(family: str, body: Reason, caller: Writer, service: ThisService) -> FamilyRollouts:
    def promote(held: Family, act: Act) -> Change:
        return domain.activate(held, transitions.running_of(held).candidate_id, act)

    return await _move(service, family, caller, body.reason, promote)


@router.post("/roll-back", summary="Let the incumbent answer alone again; takes a reason")
async def roll_back(family: str, body: Reason, caller: Writer, service: ThisService) -> FamilyRollouts:
    def back(held: Family, act: Act) -> Change:
        if not act.reason.strip():
            detail = "a roll-back needs a reason, which goes into the audit trail"
            raise Problem(422, "Invalid request", detail, field="reason")
        return transitions.roll_back(held, act)

    return await _move(service, family, caller, body.reason, back)


async def _move(
    service: RegistryService, family: str, caller: Caller, reason: str, transition: Transition
) -> FamilyRollouts:
    async with service.transaction() as tx:
        name, method = await _visible(tx.connection, family, caller)
        held = await repository.lock(tx, name, method)
        try:
            change = transition(held, Act(caller.subject, datetime.now(UTC), reason))
        except NotAllowed as error:
            raise Problem(409, "Not allowed", str(error), field=error.field) from error
        await repository.save(tx, held, await _with_evidence(tx, held, change))
        return await _view(tx.connection, family)


async def _with_evidence(tx: Transaction, held: Family, change: Change) -> Change:
    """The same change; its events carry what the step found."""
    if held.rollout is None:
        return change
    counted = await rollouts.counted(tx.connection, held.rollout.rollout_id, held.rollout.step)
    found = verdict.evidence_of(held.rollout, counted)
    events = tuple(
        replace(one, event=one.event.model_copy(update={"evidence": found})) if hasattr(one.event, "evidence") else one
        for one in change.events
    )
    return replace(change, events=events)


async def _view(connection: Connection, family: str) -> FamilyRollouts:
    found = await rollouts.rollouts_of(connection, family, EARLIER)
    if not found:
        return FamilyRollouts.of(family, None, ())
    counted = await rollouts.counted(connection, found[0].rollout_id, found[0].step)
    return FamilyRollouts.of(family, RolloutDetails.of(found[0], counted, datetime.now(UTC)), found[1:])


async def _visible(connection: Connection, family: str, caller: Caller) -> tuple[str, Method]:
    """Domain and method of the family; a 404 Problem if there is none or it lies outside the caller's domains."""
    found = await rollouts.find_family(connection, family)
    if found is None or not caller.reaches(found[0]):
        raise Problem(
            404,
            "Unknown family",
            f"no family {family[:100]!r} in the domains of this token; it is domain-method, for example shop-lora",
            field="family",
        )
    return found
