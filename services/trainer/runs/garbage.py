"""Lets data sets go by their domain's rules, and sweeps the trainer's objects."""

from datetime import timedelta

from pydantic import Field

from fleet_kit.collection import collect_objects, require_owned
from fleet_kit.object_sweep import Bound, SweptKind
from services.trainer.runs import garbage_store as store
from services.trainer.runs.context import RunContext
from services.trainer.schemas import View

KINDS = ("artifacts", "checkpoints", "exports", "reports", "routing", "datasets", "dataset-cards", "uploads", "resume")
"""What the trainer writes. Another kind is left alone until it is named here and in `marked_objects`."""


class RemovedDataset(View):
    """A data set whose file its domain's rule lets go."""

    dataset_id: str
    domain: str
    bytes: int
    reason: str


class Garbage(View):
    """What a collection found, and deleted where it was applied."""

    applied: bool
    grace_hours: float
    datasets: list[RemovedDataset]
    kinds: list[SweptKind]
    refused: str = Field(default="", description="Why nothing would be deleted if it were applied")


async def collect(service: RunContext, *, apply: bool, at_most: int = 0) -> Garbage:
    """Let go what the rules let go, then sweep; nothing is changed unless `apply`.

    Files of what is let go now, and of versions that the registry has released, go after the grace time.

    Raises:
        SweepRefused: the objects are another database's, or more than `at_most` and than is usual would go.
    """
    if apply:
        await require_owned(service.name, service.db, service.blobs, KINDS)
    grace = timedelta(hours=service.settings.gc_grace_hours)
    removed = []
    async with service.db.acquire(timeout=5) as connection:
        for domain in await store.dataset_domains(connection):
            days = service.settings.dataset_rules(domain).superseded_days
            if days is None:
                continue
            reason = f"superseded, kept for {days:g} days"
            for one in await store.removable_datasets(connection, domain, timedelta(days=days)):
                removed.append(RemovedDataset(dataset_id=one.dataset_id, domain=domain, bytes=one.bytes, reason=reason))
                if apply:
                    await store.remove_dataset(connection, one.dataset_id, reason)

    async def marks() -> frozenset[str]:
        async with service.db.acquire(timeout=5) as connection:
            return await store.marked_objects(connection, grace)

    kinds, refused = await collect_objects(
        service.name,
        service.db,
        service.blobs,
        KINDS,
        marks,
        grace=grace,
        apply=apply,
        bound=Bound(service.settings.gc_share, at_most),
    )
    return Garbage(
        applied=apply,
        grace_hours=service.settings.gc_grace_hours,
        datasets=removed,
        kinds=kinds,
        refused=refused,
    )
