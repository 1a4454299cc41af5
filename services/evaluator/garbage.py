"""Lets texts of evaluations and samples of golden versions go by their domain's rules, and sweeps objects.

Scores by sample are left alone: the registry compares versions by them, and no row of the evaluator names them.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from fleet_kit.collection import collect_objects, keep_collecting, require_owned
from fleet_kit.object_sweep import Bound, SweptKind
from services.evaluator import retention_store as store
from services.evaluator.golden import store as golden_store
from services.evaluator.parts import EvaluatorService

KINDS = ("judging", "reports")


class LetGoEvaluation(BaseModel):
    """An evaluation whose answers, exchanges with judges and report its domain's rule lets go."""

    evaluation_id: str
    adapter_id: str
    domain: str
    reason: str


class LetGoGolden(BaseModel):
    """A golden version whose samples its domain's rule lets go."""

    dataset_id: str
    version: str
    domain: str
    reason: str


class Garbage(BaseModel):
    """What a collection found, and deleted where it was applied."""

    applied: bool
    grace_hours: float
    evaluations: list[LetGoEvaluation]
    golden: list[LetGoGolden] = []
    kinds: list[SweptKind]
    refused: str = Field(default="", description="Why nothing would be deleted if it were applied")


async def collect(service: EvaluatorService, *, apply: bool, at_most: int = 0) -> Garbage:
    """Let go what the rules let go, then sweep; nothing is changed unless `apply`.

    Raises:
        SweepRefused: the objects are another database's, or more than `at_most` and than is usual would go.
    """
    settings = service.settings
    if apply:
        await require_owned(service.name, service.db, service.blobs, KINDS)
    async with service.db.acquire(timeout=5) as connection:
        domains = await store.domains(connection)
    found = [one for domain in domains for one in await _removable(service, domain)]
    for one in found if apply else ():
        async with service.transaction() as tx:
            await store.delete_exchanges(tx.connection, one.evaluation_id)
            await store.delete_results(tx.connection, one.evaluation_id)
            await store.let_go(tx.connection, one.evaluation_id)

    golden = await _removable_golden(service)
    for version in golden if apply else ():
        async with service.transaction() as tx:
            await golden_store.lock_dataset(tx.connection, version.dataset_id)
            if await store.let_golden_go(tx.connection, version.dataset_id, version.version):
                await golden_store.clear_samples(tx.connection, version.dataset_id, version.version)

    async def marks() -> frozenset[str]:
        async with service.db.acquire(timeout=5) as connection:
            return await store.marked_objects(connection)

    kinds, refused = await collect_objects(
        service.name,
        service.db,
        service.blobs,
        KINDS,
        marks,
        grace=timedelta(hours=settings.gc_grace_hours),
        apply=apply,
        bound=Bound(settings.gc_share, at_most),
    )
    return Garbage(
        applied=apply,
        grace_hours=settings.gc_grace_hours,
        evaluations=found,
        golden=golden,
        kinds=kinds,
        refused=refused,
    )


async def _removable(service: EvaluatorService, domain: str) -> list[LetGoEvaluation]:
    days = service.settings.evaluation_rules(domain).released_days
    if days is None:
        return []
    async with service.db.acquire(timeout=5) as connection:
        found = await store.removable(connection, domain, timedelta(days=days))
    reason = f"its version was released, kept for {days:g} days"
    return [
        LetGoEvaluation(evaluation_id=one.evaluation_id, adapter_id=one.adapter_id, domain=domain, reason=reason)
        for one in found
    ]


async def _removable_golden(service: EvaluatorService) -> list[LetGoGolden]:
    found: list[LetGoGolden] = []
    async with service.db.acquire(timeout=5) as connection:
        for domain in await store.golden_domains(connection):
            days = service.settings.golden_rules(domain).superseded_days
            if days is None:
                continue
            reason = f"a newer version is there, kept for {days:g} days"
            found += [
                LetGoGolden(dataset_id=one.dataset_id, version=one.version, domain=domain, reason=reason)
                for one in await store.superseded_golden(connection, domain, timedelta(days=days))
            ]
    return found


async def collect_now_and_then(service: EvaluatorService) -> None:
    """Collect every `gc_every_hours`, see `keep_collecting`."""
    await keep_collecting(service.settings.gc_every_hours, lambda: collect(service, apply=True))
