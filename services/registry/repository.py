"""Makes a transition durable: rows, audit trail and events in the caller's one transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from fleet_events.v1 import AdapterActivated, Method
from fleet_kit.db import Connection
from fleet_kit.transaction import Transaction
from services.registry import domain
from services.registry.family import Family, family_id
from services.registry.rollout.state import State
from services.registry.store import forgotten, rollouts, versions
from services.registry.transition import Act, Change


async def lock(tx: Transaction, domain_name: str, method: Method) -> Family:
    """The family as it is now, held until the transaction ends; made where it is new."""
    name = family_id(domain_name, method)
    await versions.open_family(tx.connection, name, domain_name, method)
    revision = await versions.lock_family(tx.connection, name)
    running = await rollouts.find_running(tx.connection, name)
    adapters = await versions.family_adapters(tx.connection, name)
    return Family(domain_name, method, revision, adapters, (running,) if running else ())


async def read(connection: Connection, name: str) -> Family:
    """The family as it is now, for an answer; raises LookupError where there is none."""
    adapters = await versions.family_adapters(connection, name)
    if not adapters:
        raise LookupError(f"family {name} has no versions")
    first = adapters[0].submission
    return Family(first.domain, first.method, versions=adapters)


async def save(tx: Transaction, before: Family, change: Change) -> None:
    """Write what the change differs in, its audit entries, and its events to the outbox."""
    family = change.family
    changed = [adapter for adapter in family.versions if before.find(adapter.adapter_id) != adapter]
    # The version that stops has to be written first: the database itself allows one active version a family.
    for adapter in sorted(changed, key=lambda adapter: adapter.active):
        await versions.save_adapter(tx.connection, adapter)
    # Likewise the rollout that ends before the one that begins.
    for rollout in sorted(family.rollouts, key=lambda rollout: rollout.state is State.RUNNING):
        if rollout not in before.rollouts:
            await rollouts.save_rollout(tx.connection, family.family_id, family.domain, rollout)
    if change.evaluation is not None:
        await versions.add_evaluation(tx.connection, change.adapter_id, change.evaluation)
    if family.revision != before.revision:
        await versions.save_revision(tx.connection, family.family_id, family.revision)
    for entry in change.entries:
        await versions.add_audit(tx.connection, family.domain, entry)
    for announcement in change.events:
        await tx.emit(announcement.event, announcement.adapter_id)
    if any(isinstance(announcement.event, AdapterActivated) for announcement in change.events):
        await retire_replaced(tx, family)


async def retire_replaced(tx: Transaction, family: Family) -> None:
    """Reject the versions that learned from erased records and were to serve until one does that did not."""
    serving = family.active
    if serving is None:
        return
    others = [one.adapter_id for one in family.versions if one is not serving]
    replaced = await forgotten.replaced(tx.connection, others, serving.adapter_id)
    for adapter_id, erasure_id in replaced.items():
        why = f"erasure {erasure_id}: it learned from records that are erased, and {serving.adapter_id} replaces it"
        change = domain.reject(family, adapter_id, Act(domain.PIPELINE, datetime.now(UTC), why))
        await save(tx, family, change)
        family = change.family
