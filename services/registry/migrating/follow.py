"""Families follow their base model to a new revision, where their domain's policy has it so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from fleet_events import v1
from fleet_kit.errors import Problem
from fleet_kit.faults import describe
from services.registry import domain
from services.registry.base_models import BaseModelUnavailable, WrongBaseModel
from services.registry.checkpoint import CannotServe
from services.registry.migrating.start import Order, start
from services.registry.migrating.strategy import choose
from services.registry.parts import RegistryService
from services.registry.store import migrations, versions
from services.registry.transition import Act, NotAllowed

log = structlog.get_logger()

RETRY_SECONDS = 2.0


async def follow_base_models(service: RegistryService) -> None:
    """Look every `follow_seconds` until cancelled. Replicas may do so side by side: each migration begins once."""
    while True:
        pause = service.settings.follow_seconds
        try:
            async with service.db.acquire(timeout=5) as connection:
                found = await migrations.followers(connection)
            for adapter_id in found:
                await _follow(service, adapter_id)
        except Exception as error:
            log.warning("base_models_not_followed", reason=describe(error))
            pause = min(pause, RETRY_SECONDS)  # the service may still be starting
        await asyncio.sleep(pause)


async def _follow(service: RegistryService, adapter_id: str) -> None:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await versions.find_adapter(connection, adapter_id)
        if adapter is None:
            return
        policy = await versions.find_policy(connection, adapter.submission.domain)
    base = adapter.submission.base_model
    try:
        target = await service.parts.base_models.get(base.name)
        if target.revision == base.revision or await _known(service, adapter_id, target.revision):
            return
        strategy = choose(None, policy.migration_strategies, adapter, target.reference)
        act = Act(domain.PIPELINE, datetime.now(UTC), f"{base.name} has a new revision")
        # The trainer's rules may react to the same: it trains for one of the two.
        order = Order(adapter, target, strategy, act, (v1.RetrainingTrigger.NEW_BASE_MODEL,))
        migration = await start(service, order, once=True)
    except (WrongBaseModel, BaseModelUnavailable, CannotServe, NotAllowed, Problem) as error:
        log.warning("base_model_not_followed", adapter_id=adapter_id, reason=str(error))
        return
    if migration is not None:
        log.info("base_model_followed", adapter_id=adapter_id, migration_id=migration.migration_id)


async def _known(service: RegistryService, adapter_id: str, revision: str) -> bool:
    async with service.db.acquire(timeout=5) as connection:
        return await migrations.known_to(connection, adapter_id, revision)
