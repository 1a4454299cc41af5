"""Everything known of a version, read for an answer."""

from __future__ import annotations

from services.registry.adapter_view import AdapterDetails
from services.registry.family import Adapter
from services.registry.parts import RegistryService
from services.registry.store import forgotten, metrics, usage


async def details_of(service: RegistryService, adapter: Adapter) -> AdapterDetails:
    """The version with what it did in service until now. Takes a connection: call it outside of a transaction."""
    async with service.db.acquire(timeout=5) as connection:
        return AdapterDetails.with_service(
            adapter,
            usage=await usage.usage_of(connection, adapter.adapter_id),
            feedback=await usage.feedback_of(connection, adapter.adapter_id),
            replicas=await usage.replicas_of(connection, adapter.adapter_id),
            own_metrics=await metrics.own_metrics(connection, adapter.adapter_id),
            learned_from_erased=await forgotten.erasures_of(connection, adapter.adapter_id),
        )
