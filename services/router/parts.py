"""What the router depends on beside the kit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import asyncpg
import structlog

from fleet_kit import tasks
from fleet_kit.blobs import Blobs
from fleet_kit.db import Pool
from fleet_kit.service import Service
from lora_core.embedding_thread import EmbeddingThread, open_embedder
from lora_core.errors import AdapterError
from services.router import correction_store
from services.router.calibration import Level
from services.router.evidence import Kind
from services.router.fill import fill
from services.router.index import Learning
from services.router.live import LiveIndex, keep_in_step
from services.router.settings import RouterSettings

log = structlog.get_logger()

SWEEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Model:
    """An embedding model and the index of what it makes of the adapters."""

    embedder: EmbeddingThread
    index: LiveIndex


@dataclass(slots=True)
class RouterParts:
    """The router's own parts. `answering` is the model that queries are compared with; `coming` is prepared to take
    over."""

    blobs: Blobs
    answering: Model
    coming: Model | None = None
    background: list["asyncio.Task[None]"] = field(default_factory=list)
    lacking: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where an index has an adapter that its model has no vectors of."""

    @property
    def embedders(self) -> tuple[EmbeddingThread, ...]:
        """Of every model that adapters need vectors of."""
        return tuple(one.embedder for one in (self.answering, self.coming) if one is not None)

    @property
    def learning(self) -> Learning:
        """What adapters are made vectors with now."""
        return Learning(self.embedders, self.blobs)


RouterService = Service[RouterSettings, RouterParts]


def level_of(settings: RouterSettings) -> Level:
    """The thresholds that the settings give."""
    examples, description = settings.route_threshold, settings.description_threshold
    return Level(
        settings.false_rejection,
        {Kind.CENTROIDS: examples, Kind.EXAMPLES: examples, Kind.DESCRIPTION: min(examples, description)},
    )


@asynccontextmanager
async def open_parts(service: RouterService) -> AsyncIterator[RouterParts]:
    """Loads the embedding model and the index; what the model has no vectors of gets them before anything is routed."""
    settings, pool = service.settings, service.db

    async def loaded() -> None:
        if not service.started:
            raise RuntimeError("the embedding model and the index are being loaded")

    service.extra_checks["index"] = loaded
    async with AsyncExitStack() as stack:
        answering = await _open(stack, settings.embedding_model, settings)
        parts = RouterParts(service.blobs, answering)
        stack.push_async_callback(_end, parts)
        await fill(pool, parts.learning, answering.embedder)
        await _follow(parts, pool, answering)
        parts.background.append(asyncio.create_task(_sweep(parts, pool, timedelta(days=settings.correction_days))))
        if settings.next_embedding_model:
            parts.background.append(asyncio.create_task(_take_over(parts, pool, stack, settings)))
        yield parts


async def _end(parts: RouterParts) -> None:
    await tasks.end(*parts.background)


async def _open(stack: AsyncExitStack, folder: Path, settings: RouterSettings) -> Model:
    embedder = await stack.enter_async_context(open_embedder(folder, settings.embedding_threads, half=True))
    index = LiveIndex(embedder.dimension, embedder.identity, level_of(settings), settings.search_threads)
    stack.callback(index.close)
    return Model(embedder, index)


async def _follow(parts: RouterParts, pool: Pool, model: Model) -> None:
    """Keep a model's index in step from now on; returns once it is loaded."""
    loaded = asyncio.Event()

    async def caught_up() -> None:
        loaded.set()
        if await model.index.lacking():
            parts.lacking.set()

    parts.background.append(asyncio.create_task(keep_in_step(pool, model.index, caught_up)))
    await loaded.wait()


async def _take_over(parts: RouterParts, pool: Pool, stack: AsyncExitStack, settings: RouterSettings) -> None:
    """Make the next model's vectors of everything while the present one answers; then the next one does."""
    if settings.next_embedding_model is None:
        return
    try:
        coming = await _open(stack, settings.next_embedding_model, settings)
        parts.coming = coming  # from here on handlers make its vectors too
        while await fill(pool, parts.learning, coming.embedder):
            pass
        await _follow(parts, pool, coming)
    except (AdapterError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.error("next_embedding_model_does_not_take_over", reason=repr(error), hint="mend it and start again")
        return
    parts.answering, parts.coming = coming, parts.answering
    log.info("embedding_model_took_over", model=coming.embedder.identity)


async def _sweep(parts: RouterParts, pool: Pool, age: timedelta) -> NoReturn:
    """Make what is lacking, which a replica of another model or release indexed, and forget old corrections."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWEEP_SECONDS):
                await parts.lacking.wait()
        parts.lacking.clear()
        try:
            for embedder in parts.embedders:
                await fill(pool, parts.learning, embedder)
            async with pool.acquire(timeout=5) as connection:
                await correction_store.forget_corrections(connection, age)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("sweep of the routing index waits for the database", reason=repr(error))
