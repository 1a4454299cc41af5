"""What rules look at, read from the database."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.faults import Fault
from services.trainer.jobs import domain as jobs
from services.trainer.jobs.acceptance import faults_of
from services.trainer.jobs.domain import Job
from services.trainer.retraining.context import RetrainingContext
from services.trainer.retraining.decision import erasure_key
from services.trainer.retraining.rebuilding import Rebuild, find_rebuild
from services.trainer.retraining.situation import ActiveVersion, Distances, Observed, Situation
from services.trainer.retraining.store import evidence, firings
from services.trainer.retraining.store.evidence import KnownActive
from services.trainer.retraining.store.rules import StoredRules
from services.trainer.training.configuration import Configuration
from services.trainer.training.objectives.table import objective_named

_DAY = timedelta(days=1)
MOST_STEPS = 2**31 - 1
"""What the database holds; years of training."""


@dataclass(frozen=True)
class Observation:
    """A domain as its rules find it, the job that they would request now, and what is wrong with that request."""

    situation: Situation
    job: Job
    faults: tuple[Fault, ...]
    rebuild: Rebuild | None = None


async def active_of(connection: Connection, stored: StoredRules) -> KnownActive | None:
    """The active version of the family that the rules train."""
    return await evidence.find_active(connection, family_of(stored.rules.request(stored.domain)))


async def observe(
    connection: Connection,
    stored: StoredRules,
    active: ActiveVersion | None,
    distances: Distances,
    service: RetrainingContext,
) -> Observation:
    """Everything that `decide` looks at, at the time of the transaction's begin by the database's clock."""
    now: datetime = await connection.fetchval("select now()")
    rules, domain, base = stored.rules, stored.domain, service.parts.checks.base
    request = rules.request(domain)
    erased = await evidence.erasures(connection, family_of(request), active.adapter_id if active else "")
    # What learned from erased records is not trained further, whatever the cause.
    continues = active is not None and rules.from_active and active.trained_here and not erased
    if active is not None and continues and active.base_revision == base.revision:
        request = request.model_copy(update={"continue_from": active.adapter_id})
    handled = await firings.handled(connection, domain)
    unanswered = [one for one in erased if (rules.after_erasure or erased[one]) and erasure_key(one) not in handled]
    rebuild = None
    if unanswered:
        named = active.adapter_id if active else ""
        rebuild = await find_rebuild(connection, family_of(request), named, unanswered)
    if rebuild is not None and rebuild.dataset_id:
        # The recipe has selected the records.
        request = request.model_copy(update={"dataset_id": rebuild.dataset_id, "query": "", "min_rating": None})
    job, faults = await faults_of(jobs.queue(request, "retraining", now), connection, service)
    kind = objective_named(request.objective).live
    bare = Situation(
        now,
        stored.set_at,
        base.revision,
        active=active,
        deactivated=await evidence.is_deactivated(connection, family_of(request)),
        distances=distances,
        last_firing=await firings.last_fired(connection, domain),
        open_job=await firings.open_job(connection, domain),
        spent=await firings.spent_since(connection, domain, now - _DAY),
        handled=handled,
        erased=tuple(erased),
        to_replace=frozenset(one for one in erased if erased[one]),
        not_rebuilt=rebuild.hindrance if rebuild else None,
    )
    since = bare.evidence_since
    usable = await evidence.count_usable(connection, kind, request, None, now)
    rated: tuple[Observed, ...] = ()
    if rules.rating_trend is not None and active is not None:
        rated = await evidence.ratings(connection, active.adapter_id, rules.rating_trend.reference, since)
    steps = planned_steps(job.configuration, rebuild.samples if rebuild else usable)
    # Of a first training nothing is measured; no row is longer than max_length.
    size = job.configuration.batch_size
    of_a_step = await firings.tokens_of_a_step(connection, domain, size, Configuration.batch_size)
    situation = replace(
        bare,
        new_samples=await evidence.count_usable(connection, kind, request, since, now),
        planned_steps=steps,
        planned_tokens=steps * (of_a_step or size * job.configuration.max_length),
        ratings=rated,
    )
    return Observation(situation, job, faults, rebuild)


def family_of(request: v1.TrainingRequested) -> str:
    """Name of the family that a request trains: domain-method."""
    return f"{request.domain}-{request.method or v1.Method.LORA}"


def planned_steps(configuration: Configuration, usable: int) -> int:
    """Optimizer steps of a training on so many records; 0 for none."""
    if not usable:
        return 0
    in_epochs = max(1, math.ceil(configuration.epochs * math.ceil(usable / configuration.batch_size)))
    in_epochs = min(in_epochs, MOST_STEPS)
    return min(in_epochs, configuration.max_steps) if configuration.max_steps else in_epochs
