"""Changes of the routing index: what a handler, a rebuild and a change of the embedding model have in common."""

import structlog

from fleet_events.v1 import AdapterActivated, AdapterDeactivated
from fleet_kit.db import Connection

from . import domain, store
from .domain import Route
from .embedder import Embedder

log = structlog.get_logger()


async def activate(connection: Connection, embedder: Embedder, event: AdapterActivated) -> None:
    """Indexes the adapter, unless the index holds something newer."""
    held = await store.held(connection, event.adapter.adapter_id)
    route = domain.activate(held, event)
    if route != held:
        await _index(connection, embedder, route)


async def deactivate(connection: Connection, event: AdapterDeactivated) -> None:
    """Takes the adapter out of the index and leaves a tombstone."""
    held = await store.held(connection, event.adapter_id)
    route = domain.deactivate(held, event)
    if route == held:
        return
    await store.mark_deactivated(connection, route)
    if not route.routable:
        await store.delete_texts(connection, route.adapter_id)


async def replace_all(connection: Connection, embedder: Embedder, routes: dict[str, Route]) -> int:
    """The index becomes exactly this; returns how many adapters it routes to. The caller holds the lock."""
    await store.empty_index(connection)
    for route in routes.values():
        await _index(connection, embedder, route)
    return sum(route.routable for route in routes.values())


async def embed_anew(connection: Connection, embedder: Embedder) -> int:
    """Embeds again what another embedding model embedded; returns how many adapters that were."""
    await store.lock_index(connection)
    stale = await store.embedded_otherwise(connection, embedder.identity)
    for adapter_id, texts in stale.items():
        vectors = await embedder.embed(texts)
        await store.delete_texts(connection, adapter_id)
        await store.save_texts(connection, adapter_id, texts, vectors)
        await store.mark_embedded(connection, adapter_id, embedder.identity)
    return len(stale)


async def _index(connection: Connection, embedder: Embedder, route: Route) -> None:
    await store.save_route(connection, route, embedder.identity)
    await store.delete_texts(connection, route.adapter_id)
    if not route.routable:
        return
    if not route.texts:
        log.warning("nothing_to_route_by", adapter_id=route.adapter_id, hint="no description, no example prompts")
        return
    await store.save_texts(connection, route.adapter_id, route.texts, await embedder.embed(route.texts))
