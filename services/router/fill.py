"""Vectors of an embedding model for everything that has none of it yet: of a new model, or of an older release."""

import structlog

from fleet_kit.db import Pool
from lora_core.embedding_thread import EmbeddingThread
from services.router import correction_store, store
from services.router.index import Learning

log = structlog.get_logger()


async def fill(pool: Pool, learning: Learning, embedder: EmbeddingThread) -> int:
    """Makes what is lacking, each adapter in a transaction of its own; returns how many that were.

    What changes meanwhile is made by its handler, which waits for the one adapter at most.
    """
    async with pool.acquire() as connection:
        lacking = await store.lacking_vectors(connection, embedder.identity)
        taught = await correction_store.corrections_lacking_vectors(connection, embedder.identity)
    for route in lacking:
        made = await learning.of(route, embedder)
        if made is None:
            continue
        async with pool.acquire() as connection, connection.transaction():
            held = await store.held(connection, route.adapter_id)
            if held is not None and held.activated == route.activated and held.routable:
                await store.save_evidence(connection, route.adapter_id, embedder.identity, made)
                await store.notify_changed(connection, route.family)
    for one in taught:
        [vector] = await embedder.embed([one.query])
        async with pool.acquire() as connection, connection.transaction():
            if await correction_store.taught(connection, one):
                await correction_store.save_correction_vector(connection, one, embedder.identity, vector)
                await correction_store.notify_taught(connection, one.domain)
    if lacking:
        log.info("embedded_anew", adapters=len(lacking), model=embedder.identity)
    return len(lacking)
