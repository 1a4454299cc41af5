"""Changes of the routing index: what a handler, a rebuild and a change of the embedding model have in common."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from fleet_events.v1 import AdapterActivated, AdapterDeactivated, RoutingProfile
from fleet_kit.blobs import Blobs
from fleet_kit.db import Connection
from fleet_kit.errors import BlobCorrupt, BlobMissing
from lora_core.embedding_thread import EmbeddingThread
from lora_core.errors import CorruptAdapter
from lora_core.routing_profile import RoutingProfile as Profile
from services.router import correction_store, domain, evidence, store
from services.router.domain import Route
from services.router.evidence import Evidence

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Learning:
    """What adapters are made vectors with: embedding models, mostly one, and where the trainer's profiles lie."""

    embedders: Sequence[EmbeddingThread]
    blobs: Blobs

    async def of(self, route: Route, embedder: EmbeddingThread) -> Evidence | None:
        """What one model knows the adapter by; None where there is nothing to go by.

        A profile is of use to the model that made it alone; another one has the texts.
        """
        if route.profile is not None and route.profile.embedded_by == embedder.identity:
            profile = await self._fetch(route.adapter_id, route.profile)
            if profile is not None:
                return evidence.of_profile(profile)
        description = route.description.strip()
        return await evidence.of_texts(embedder, description, [text for text in route.texts if text != description])

    async def _fetch(self, adapter_id: str, named: RoutingProfile) -> Profile | None:
        # A profile that is of no use ends no more than itself: the adapter has its texts still.
        with tempfile.TemporaryDirectory() as folder:
            try:
                return Profile.load(await self.blobs.fetch(named.blob, Path(folder) / "routing.safetensors"))
            except (BlobMissing, BlobCorrupt, CorruptAdapter) as error:
                log.warning("routing_profile_of_no_use", adapter_id=adapter_id, reason=str(error))
                return None


async def activate(connection: Connection, learning: Learning, event: AdapterActivated) -> None:
    """Indexes the adapter, unless the index holds something newer."""
    held = await store.held(connection, event.adapter.adapter_id)
    route = domain.activate(held, event)
    if route != held:
        await _index(connection, learning, route)


async def deactivate(connection: Connection, event: AdapterDeactivated) -> None:
    """Takes the adapter out of the index and leaves a tombstone."""
    held = await store.held(connection, event.adapter_id)
    route = domain.deactivate(held, event)
    if route == held:
        return
    await store.mark_deactivated(connection, route)
    if not route.routable:
        await store.delete_texts(connection, route.adapter_id)
        await store.delete_vectors(connection, route.adapter_id)


async def replace_all(connection: Connection, learning: Learning, routes: dict[str, Route]) -> int:
    """The index becomes exactly this; returns how many adapters it routes to. The caller holds the lock."""
    await store.empty_index(connection)
    for route in routes.values():
        await _index(connection, learning, route)
    return sum(route.routable for route in routes.values())


async def teach(connection: Connection, embedders: Sequence[EmbeddingThread], one: correction_store.Correction) -> None:
    """Keeps a correction of a query."""
    await correction_store.save_correction(connection, one)
    for embedder in embedders:
        [vector] = await embedder.embed([one.query])
        await correction_store.save_correction_vector(connection, one, embedder.identity, vector)
    await correction_store.notify_taught(connection, one.domain)


async def _index(connection: Connection, learning: Learning, route: Route) -> None:
    await store.save_route(connection, route)
    await store.delete_texts(connection, route.adapter_id)
    await store.delete_vectors(connection, route.adapter_id)
    if not route.routable:
        return
    await store.save_texts(connection, route.adapter_id, route.texts)
    for embedder in learning.embedders:
        made = await learning.of(route, embedder)
        if made is None:
            log.warning("nothing_to_route_by", adapter_id=route.adapter_id, hint="no description, no example prompts")
            return
        await store.save_evidence(connection, route.adapter_id, embedder.identity, made)
