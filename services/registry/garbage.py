"""Lets versions go by their domain's rules, and sweeps the registry's own objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog
from pydantic import Field

from fleet_kit.collection import collect_objects, keep_collecting, require_owned
from fleet_kit.object_sweep import Bound, SweptKind
from services.registry import repository
from services.registry.keeping import Releasable, releasable, release
from services.registry.parts import RegistryService
from services.registry.store import keeping as store
from services.registry.store import versions
from services.registry.transition import Act, NotAllowed
from services.registry.view import View

log = structlog.get_logger()

KINDS = ("artifacts", "checkpoints")
"""What the registry writes by digest. What lies below `imports` is its owners', and stays."""
RETENTION = "retention"
"""Who releases a version when the rules do."""


class ReleasedVersion(View):
    """A version that the rules of its domain let go."""

    adapter_id: str
    domain: str
    reason: str


class Garbage(View):
    """What a collection found, and deleted where it was applied."""

    applied: bool
    grace_hours: float = Field(description="Younger objects, and those of versions released since, stay")
    released: list[ReleasedVersion] = Field(description="Versions whose files are let go by this collection")
    kinds: list[SweptKind]
    refused: str = Field(default="", description="Why nothing would be deleted if it were applied")


async def collect(service: RegistryService, *, apply: bool, at_most: int = 0) -> Garbage:
    """Release what the rules let go, then sweep; nothing is changed unless `apply`.

    The files of what is released now go with the first collection after the grace time.

    Raises:
        SweepRefused: the objects are another database's, or more than `at_most` and than is usual would go.
    """
    if apply:
        await require_owned(service.name, service.db, service.blobs, KINDS)
    grace = timedelta(hours=service.settings.gc_grace_hours)
    released = [
        ReleasedVersion(adapter_id=one.adapter_id, domain=domain, reason=one.reason)
        for domain in await _domains(service)
        for one in await _let_go(service, domain, apply=apply)
    ]

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
        released=released,
        kinds=kinds,
        refused=refused,
    )


async def collect_now_and_then(service: RegistryService) -> None:
    """Collect every `gc_every_hours`, see `keep_collecting`."""
    await keep_collecting(service.settings.gc_every_hours, lambda: collect(service, apply=True))


async def _domains(service: RegistryService) -> list[str]:
    async with service.db.acquire(timeout=5) as connection:
        return await store.domains(connection)


async def _let_go(service: RegistryService, domain: str, *, apply: bool) -> list[Releasable]:
    now = datetime.now(UTC)
    async with service.db.acquire(timeout=5) as connection:
        adapters = await store.domain_adapters(connection, domain)
        used = await store.last_used(connection, domain)
        in_use = await store.in_use(connection, domain)
    found = releasable(adapters, used, service.settings.rules_of(domain), now, in_use=in_use)
    if not apply:
        return found
    return [one for one in found if await _release(service, one)]


async def _release(service: RegistryService, one: Releasable) -> bool:
    """False where somebody activated or held the version in the meantime."""
    async with service.transaction() as tx:
        adapter = await versions.find_adapter(tx.connection, one.adapter_id)
        if adapter is None:
            return False
        family = await repository.lock(tx, adapter.submission.domain, adapter.submission.method)
        try:
            change = release(family, one.adapter_id, Act(RETENTION, datetime.now(UTC), one.reason))
        except NotAllowed as error:
            log.info("version_kept", adapter=one.adapter_id, reason=str(error))
            return False
        await repository.save(tx, family, change)
    return True
