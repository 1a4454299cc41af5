"""Retraining rules, evaluated every few seconds by one trainer at a time. A firing is one transaction: what fired, the
causes that it answers, and the TrainingRequested, which the trainer accepts as any other."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from fleet_kit import tasks
from fleet_kit.db import keeps_session
from fleet_kit.errors import Problem
from fleet_kit.transaction import Transaction
from services.trainer.faults import InvalidRequest
from services.trainer.jobs import quotas
from services.trainer.retraining import metrics
from services.trainer.retraining.context import RetrainingContext
from services.trainer.retraining.decision import Cause, Decision, Suppressed, decide
from services.trainer.retraining.observation import Observation, active_of, observe
from services.trainer.retraining.prompt_distances import PromptDistances
from services.trainer.retraining.rebuilding import REBUILDING, request_rebuild
from services.trainer.retraining.situation import Distances
from services.trainer.retraining.store import firings, rules
from services.trainer.retraining.store.evidence import KnownActive
from services.trainer.retraining.store.firings import Firing
from services.trainer.retraining.store.rules import StoredRules
from services.trainer.retry import PASSING

log = structlog.get_logger()
_KEPT = timedelta(days=30)
"""How long it is listed that a cause was held back."""


@asynccontextmanager
async def retraining(service: RetrainingContext) -> AsyncIterator[None]:
    """Evaluate all rules every `retraining_seconds` as long as this is open."""
    distances = PromptDistances(service.settings.embedding_model)
    task = asyncio.create_task(_keep_evaluating(distances, service))
    try:
        yield
    finally:
        await tasks.end(task)
        distances.close()


async def _keep_evaluating(distances: PromptDistances, service: RetrainingContext) -> None:
    while True:
        try:
            await evaluate_all(distances, service)
        except PASSING as error:
            log.warning("retraining_not_evaluated", reason=repr(error))
        await asyncio.sleep(service.settings.retraining_seconds)


async def evaluate_all(distances: PromptDistances, service: RetrainingContext) -> None:
    """Evaluate each domain's rules once, unless another trainer is at it."""
    async with service.db.acquire(timeout=5) as connection:
        keeps_session(connection)
        if not await connection.fetchval("select pg_try_advisory_lock(hashtextextended('trainer.retraining', 106))"):
            return
        try:
            for domain in await rules.list_domains(connection):
                await _evaluate_domain(domain, distances, service)
        finally:
            await connection.execute("select pg_advisory_unlock(hashtextextended('trainer.retraining', 106))")


async def _evaluate_domain(domain: str, distances: PromptDistances, service: RetrainingContext) -> None:
    try:
        await evaluate(domain, distances, service)
    except PASSING:
        raise
    except Exception:
        # One domain's fault must not keep the others from being trained.
        metrics.FAULTS.inc()
        log.exception("retraining_rules_failed", domain=domain)


async def evaluate(domain: str, distances: PromptDistances, service: RetrainingContext) -> Decision:
    """Evaluate one domain's rules; a job is requested where they fire and nothing holds them back."""
    async with service.db.acquire(timeout=5) as connection:
        stored = await rules.find(connection, domain)
        active = await active_of(connection, stored) if stored else None
    if stored is None or not stored.rules.enabled:
        return Decision()
    if active is not None and not active.known:
        return Decision()  # its registration has not arrived yet
    measured = Distances()
    if stored.rules.drift is not None and active is not None:
        measured = await distances.measure(domain, active, service)
    async with service.transaction() as tx:
        return await _evaluate(tx, stored, active, measured, service)


async def _evaluate(
    tx: Transaction, read: StoredRules, active: KnownActive | None, measured: Distances, service: RetrainingContext
) -> Decision:
    await rules.lock_domain(tx.connection, read.domain)
    stored = await rules.find(tx.connection, read.domain)
    if stored != read or await active_of(tx.connection, read) != active:
        return Decision()  # it changed meanwhile; the next evaluation sees it whole
    found = await observe(tx.connection, read, active.version if active else None, measured, service)
    decision, now = decide(read.rules, found.situation), found.situation.now
    if decision.fired and (refused := await _refusal(tx, found, service)):
        held = (Suppressed(cause, *refused) for cause in decision.fired)
        decision = Decision(suppressed=(*decision.suppressed, *held))
    if decision.fired:
        await _fire(tx, read, found, decision, now)
    if found.rebuild and not found.rebuild.since and any(one.why == REBUILDING for one in decision.suppressed):
        await request_rebuild(tx, found.rebuild, read.set_by, now, service)
    for one in decision.suppressed:
        if await firings.add_suppressed(tx.connection, read.domain, one, now):
            metrics.SUPPRESSED.labels(one.why).inc()
    await firings.forget_suppressed(tx.connection, read.domain, now - _KEPT)
    return decision


async def _refusal(tx: Transaction, found: Observation, service: RetrainingContext) -> tuple[str, str] | None:
    """Why the trainer would not accept the request."""
    if found.faults:
        return "invalid_request", str(InvalidRequest(found.faults))
    try:
        await quotas.check_job(tx.connection, found.job.domain, service.settings)
    except Problem as full:
        return "quota", str(full)
    return None


async def _fire(tx: Transaction, stored: StoredRules, found: Observation, decision: Decision, now: datetime) -> None:
    active = found.situation.active
    firing = Firing(
        job_id=job_id_of(stored.domain, decision.fired),
        domain=stored.domain,
        active_adapter=active.adapter_id if active else "",
        triggers=tuple(cause.trigger for cause in decision.fired),
        reason=decision.reason,
        planned_steps=found.situation.planned_steps,
        planned_tokens=found.situation.planned_tokens,
        fired_at=now,
    )
    await firings.add_firing(tx.connection, firing, decision.fired)
    await firings.add_causes(tx.connection, firing, decision.fired)
    request = found.job.request.model_copy(
        update={
            "job_id": firing.job_id,
            "requested_by": stored.set_by,
            "reason": firing.reason,
            "triggers": firing.triggers,
        }
    )
    await tx.emit(request, entity=firing.job_id)
    for trigger in firing.triggers:
        metrics.FIRED.labels(trigger.value).inc()
    log.info("retraining_fired", domain=stored.domain, job=firing.job_id, reason=firing.reason)


def job_id_of(domain: str, causes: tuple[Cause, ...]) -> str:
    """Id of the job for these causes: the same causes give the same job, whichever trainer requests it."""
    digest = hashlib.sha256("\n".join(sorted(cause.key for cause in causes)).encode()).hexdigest()
    return f"retrain-{domain}-{digest[:12]}"
