"""A recommended update is published once, and takes over where the domain's policy has it so."""

from __future__ import annotations

from datetime import datetime

from fleet_events import v1
from fleet_kit.transaction import Transaction
from services.registry import domain, repository
from services.registry.family import Family
from services.registry.policy import Policy
from services.registry.rollout import transitions as rollouts
from services.registry.store import updates
from services.registry.transition import Act
from services.registry.updating.update import best_update


async def recommend_update(tx: Transaction, family: Family, policy: Policy, at: datetime) -> None:
    """Recommend the best update of the family's active version, if there is one that was not recommended before.

    Called where evidence or an approval came in, and not where a human chose which version serves: that choice stays.
    While a rollout runs, its own evidence decides.
    """
    running = family.active
    if running is None or family.rollout is not None:
        return
    served = await updates.served_before(tx.connection, family.family_id)
    update = best_update(family, running, served, policy.update_minimum_improvement)
    if update is None or not update.recommended or update.comparison is None:
        return
    available = update.available.adapter_id
    new = await updates.add_recommendation(
        tx.connection, running.adapter_id, available, at=at, applied=policy.apply_updates, reason=update.why
    )
    if not new:
        return
    recommended = v1.UpdateRecommended(
        family=family.family_id,
        domain=family.domain,
        running=running.adapter_id,
        available=available,
        difference=update.comparison.difference,
        ci_low=update.comparison.ci_low,
        ci_high=update.comparison.ci_high,
        improvement=update.improvement or 0.0,
        samples=update.comparison.samples,
        reason=update.why,
        applied=policy.apply_updates,
    )
    await tx.emit(recommended, available)
    if policy.apply_updates:
        act = Act(domain.PIPELINE, at, f"update: {update.why}")
        by_rollout = rollouts.take_over(family, available, policy.delivery, act)
        change = by_rollout or domain.activate(family, available, act)
        await repository.save(tx, family, change)
