"""Everything known of a version, read for an answer."""

from __future__ import annotations

from services.registry.adapter_view import AdapterDetails
from services.registry.family import Adapter
from services.registry.parts import RegistryService
from services.registry.store import metrics, usage


async def details_of(service: RegistryService, adapter: Adapter) -> AdapterDetails:
    """The version with what it did in service until now. Takes a connection: call it outside of a transaction."""
    async with service.db.acquire(timeout=5) as connection:
        return AdapterDetails.with_service(
            adapter,
            await usage.usage_of(connection, adapter.adapter_id),
            await usage.feedback_of(connection, adapter.adapter_id),
            await usage.replicas_of(connection, adapter.adapter_id),
            await metrics.own_metrics(connection, adapter.adapter_id),
        )
