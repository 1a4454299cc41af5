"""Makes a transition durable: rows, audit trail and events in the caller's one transaction."""

from __future__ import annotations

from fleet_events.v1 import Method
from fleet_kit.db import Connection
from fleet_kit.transaction import Transaction
from services.registry.family import Family, family_id
from services.registry.rollout.state import State
from services.registry.store import rollouts, versions
from services.registry.transition import Change


async def lock(tx: Transaction, domain: str, method: Method) -> Family:
    """The family as it is now, held until the transaction ends; made where it is new."""
    name = family_id(domain, method)
    await versions.open_family(tx.connection, name, domain, method)
    revision = await versions.lock_family(tx.connection, name)
    running = await rollouts.find_running(tx.connection, name)
    adapters = await versions.family_adapters(tx.connection, name)
    return Family(domain, method, revision, adapters, (running,) if running else ())


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
