"""HTTP in: retraining rules. Scope `train`; a caller sees only the domains of its token."""

import json
from datetime import UTC, datetime

from fastapi import APIRouter

from fleet_events.v1 import DomainName
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.trainer.faults import Fault, InvalidRequest
from services.trainer.http_access import Limit, Trains
from services.trainer.jobs import domain as jobs
from services.trainer.jobs.acceptance import faults_of
from services.trainer.jobs.request import read_request
from services.trainer.retraining.context import Retraining, RetrainingContext
from services.trainer.retraining.rules import RetrainingRules
from services.trainer.retraining.schemas import FiringsView, FiringView, RulesView, SuppressedView
from services.trainer.retraining.store import firings
from services.trainer.retraining.store import rules as store

router = APIRouter(prefix="/v1/retraining", tags=["retraining"])


@router.get("", summary="Retraining rules of all domains in reach")
async def list_rules(caller: Trains, trainer: Retraining) -> dict[str, list[RulesView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await store.list_rules(connection, caller.domain_filter)
    return {"rules": [RulesView.of(one) for one in found]}


@router.get("/{domain}", summary="A domain's retraining rules")
async def get_rules(domain: DomainName, caller: Trains, trainer: Retraining) -> RulesView:
    """Of a domain without any: rules whose triggers are all off."""
    caller.reach(domain)
    async with trainer.db.acquire(timeout=5) as connection:
        stored = await store.find(connection, domain)
    return RulesView.of(stored) if stored else RulesView(domain=domain, rules=RetrainingRules(enabled=False))


@router.put("/{domain}", summary="Set a domain's retraining rules")
async def put_rules(domain: DomainName, body: RetrainingRules, caller: Trains, trainer: Retraining) -> RulesView:
    """The training request that they stand for is checked as POST /v1/jobs checks one. Jobs are requested in the name
    of the caller who set the rules last."""
    caller.reach(domain)
    async with trainer.transaction() as tx:
        await store.lock_domain(tx.connection, domain)
        if faults := await _faults(domain, body, tx.connection, trainer):
            raise _unprocessable(faults)
        return RulesView.of(await store.save(tx.connection, domain, body, caller.subject))


@router.get("/{domain}/firings", summary="Jobs that a domain's rules requested, and causes that were held back")
async def list_firings(domain: DomainName, caller: Trains, trainer: Retraining, limit: Limit = 100) -> FiringsView:
    caller.reach(domain)
    async with trainer.db.acquire(timeout=5) as connection:
        fired = await firings.list_firings(connection, domain, limit)
        held = await firings.list_suppressed(connection, domain, limit)
    return FiringsView(
        firings=[FiringView.of(one) for one in fired], suppressed=[SuppressedView.of(one) for one in held]
    )


async def _faults(
    domain: str, rules: RetrainingRules, connection: Connection, trainer: RetrainingContext
) -> tuple[Fault, ...]:
    reading = read_request(json.dumps(rules.request_body(domain)).encode())
    if reading.request is None or reading.faults:
        return reading.faults
    _, faults = await faults_of(jobs.queue(reading.request, "retraining", datetime.now(UTC)), connection, trainer)
    return faults


def _unprocessable(faults: tuple[Fault, ...]) -> Problem:
    named = [Fault(f"training.{one.field}", one.value, one.expected) for one in faults]
    return Problem(
        422,
        "Invalid retraining rules",
        str(InvalidRequest(tuple(named))),
        field=named[0].field,
        faults=[{"field": one.field, "value": one.value, "expected": one.expected} for one in named],
    )
