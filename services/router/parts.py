"""What the router stands on beside the kit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from fleet_kit.service import Service

from .embedder import Embedder, open_embedder
from .index import embed_anew
from .settings import RouterSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RouterParts:
    """The router's own parts."""

    embedder: Embedder


RouterService = Service[RouterSettings, RouterParts]


@asynccontextmanager
async def open_parts(service: RouterService) -> AsyncIterator[RouterParts]:
    """Loads the embedding model; vectors of an earlier model are computed anew before anything is routed."""
    settings = service.settings

    async def loaded() -> None:
        if service.made is None:
            raise RuntimeError("the embedding model is being loaded")

    service.extra_checks["index"] = loaded
    async with open_embedder(settings.embedding_model, settings.embedding_threads) as embedder:
        async with service.db.acquire() as connection, connection.transaction():
            if anew := await embed_anew(connection, embedder):
                log.info("embedded_anew", adapters=anew, model=embedder.identity)
        yield RouterParts(embedder)
