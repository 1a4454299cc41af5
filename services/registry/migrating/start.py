"""A migration begins: a training is requested, or a converted version registered, in one transaction with its row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fleet_events import v1
from fleet_kit.cloudevents import event_id
from fleet_kit.transaction import Transaction
from services.registry import checkpoint, domain, quota, repository
from services.registry.base_models import Pinned
from services.registry.family import Adapter, Submission
from services.registry.imports.source import Origin
from services.registry.migrating.strategy import Strategy, Target, check, training_request
from services.registry.parts import RegistryService
from services.registry.store import migrations, versions
from services.registry.store.migrations import Migration
from services.registry.transition import Act, AuditEntry, NotAllowed


@dataclass(frozen=True, slots=True)
class Order:
    """Which version is to be carried over to which base model, how, and who has it so."""

    adapter: Adapter
    target: Pinned
    strategy: Strategy
    act: Act
    triggers: tuple[v1.RetrainingTrigger, ...] = ()
    """Where no person has it so: what is reacted to."""


async def start(service: RegistryService, order: Order, *, once: bool = False) -> Migration | None:
    """Begin a migration. `once`: only if this version was never carried over to that revision; None where it was.

    Raises NotAllowed where it cannot be done like this or is under way, CannotServe where the artifact does not fit the
    new base model, Problem where the domain's quota is full.
    """
    async with service.db.acquire(timeout=5) as connection:
        policy = await versions.find_policy(connection, order.adapter.submission.domain)
    check(order.adapter, order.target.reference, order.strategy, policy)
    # Files are fetched and checked before a transaction is open: that takes as long as they are large.
    converted = await _converted(service, order) if order.strategy is Strategy.CONVERT else None
    submission = order.adapter.submission
    async with service.transaction() as tx:
        family = await repository.lock(tx, submission.domain, submission.method)
        if once and await migrations.known_to(tx.connection, order.adapter.adapter_id, order.target.revision):
            return None
        migration = _migration(order)
        if converted is None:
            migration = await _request_training(tx, order, migration)
        else:
            change = domain.register(family, converted, order.act)
            await repository.save(tx, family, change)
            migration = replace(
                migration, state="registered", new_adapter_id=change.adapter_id, ended_at=datetime.now(UTC)
            )
        if not await migrations.add_migration(tx.connection, migration):
            raise NotAllowed(
                f"a migration of {migration.adapter_id} to this revision of {migration.to_base_model} is under way; "
                "GET /v1/migrations lists it",
                "to_base_model",
            )
        after = {"migration_id": migration.migration_id, "strategy": migration.strategy, "to": migration.to_base_model}
        entry = AuditEntry(migration.adapter_id, "migration_requested", order.act, {}, dict(after), family.revision)
        await versions.add_audit(tx.connection, submission.domain, entry)
    return migration


async def _request_training(tx: Transaction, order: Order, migration: Migration) -> Migration:
    job_id = f"migration-{migration.migration_id}"
    projections = frozenset(name.rpartition(".")[2] for name in order.target.shapes)
    target = Target(order.target.reference, projections)
    distil = order.strategy is Strategy.DISTIL
    request = training_request(order.adapter, target, job_id, order.act, distil=distil, triggers=order.triggers)
    await tx.emit(request, job_id)
    return replace(migration, job_id=job_id)


async def _converted(service: RegistryService, order: Order) -> Submission:
    """The same weights for the new base model. The probe is left out: its logits are those of the old one.

    Its files are stored anew, and count for the domain's quota: it does not depend on those of the old version.
    """
    old, models = order.adapter.submission, service.parts.base_models
    size = old.checkpoint.bytes + old.checkpoint_config.bytes + old.artifact.blob.bytes
    async with service.db.acquire(timeout=5) as connection:
        await quota.check_stored(connection, old.domain, size, service.settings.max_uploaded_bytes)
    with service.parts.scratch.folder() as folder:
        peft, artifact = folder / "peft", folder / "artifact"
        weights, config = peft / checkpoint.WEIGHTS, peft / checkpoint.CONFIG
        await service.blobs.fetch(old.checkpoint, weights)
        await service.blobs.fetch(old.checkpoint_config, config)
        contents = await models.inspector.convert(peft, old.family, artifact, order.target.shapes)
        models.check_rank(contents)
        return replace(
            old,
            base_model=order.target.reference,
            artifact=v1.Artifact(
                blob=await service.blobs.put("artifacts", artifact),
                rank=contents.rank,
                alpha=contents.alpha,
                target_modules=contents.target_modules,
            ),
            checkpoint=await service.blobs.put("checkpoints", weights),
            checkpoint_config=await service.blobs.put("checkpoints", config),
            by=order.act.by,
            version=None,
            bump=None,
            probe=None,
            training=None,
            origin=Origin("peft", f"converted from {order.adapter.adapter_id}", ()),
        )


def _migration(order: Order) -> Migration:
    base, target = order.adapter.submission.base_model, order.target
    return Migration(
        migration_id=event_id(),
        adapter_id=order.adapter.adapter_id,
        domain=order.adapter.submission.domain,
        strategy=order.strategy.value,
        from_base_model=base.name,
        from_revision=base.revision,
        to_base_model=target.name,
        to_revision=target.revision,
        state="training",
        job_id=None,
        new_adapter_id=None,
        error="",
        reason=order.act.reason,
        requested_by=order.act.by,
        requested_at=order.act.at,
        ended_at=None,
    )
