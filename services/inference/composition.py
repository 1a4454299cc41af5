"""Put the parts of inference together, run its background tasks, and take all of it down again."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import httpx
import structlog

from fleet_events.buckets import BATCHES, RESPONSES, USED
from fleet_kit import memory, tasks
from fleet_kit.key_value import KeyValue
from fleet_kit.positions import announce_position
from lora_core.embedding_thread import EmbeddingThread
from services.inference import gauges
from services.inference.backlog import Publications
from services.inference.base_models import BaseModels
from services.inference.batches.runner import BatchRunner
from services.inference.batches.store import KIND as BATCH_FILES
from services.inference.batches.store import BatchStore
from services.inference.generation import Generator
from services.inference.generation_ids import GenerationIds
from services.inference.http.drain import Gate
from services.inference.http.rate_limit import RateLimit
from services.inference.http.responses.store import ResponseStore
from services.inference.loading.cache import DiskCache
from services.inference.model_opening import open_base_model
from services.inference.parts import InferenceParts, InferenceService
from services.inference.policies.predictor import Predictor
from services.inference.policies.preloading import Preloading
from services.inference.policies.watch import PressureWatch
from services.inference.precedence import Precedence
from services.inference.projection import Projection
from services.inference.publisher import Publisher
from services.inference.quotas import Ledger
from services.inference.quotas.sharing import share
from services.inference.recording.rated import HeldForFeedback
from services.inference.recording.recorder import KIND as ANSWER_TEXTS
from services.inference.recording.recorder import Recorder
from services.inference.recording.texts import keep_sweeping
from services.inference.replicas.announcements import Announcements
from services.inference.replicas.forwarding import LIMITS, TIMEOUT, Forwarding
from services.inference.settings import InferenceSettings
from services.inference.shadows import Shadows

log = structlog.get_logger()


@asynccontextmanager
async def open_parts(service: InferenceService) -> AsyncIterator[InferenceParts]:
    """Load the base models, then follow the registry's events; ready when both are done."""
    settings = service.settings
    ready = asyncio.Event()

    async def caught_up() -> None:
        if not ready.is_set():
            raise RuntimeError("the base model is loading, or the registry's events are still being read")

    gate = Gate()
    # Replicas share the key of the object store, so feedback may go to any of them, and so may a stored response.
    secret = settings.s3_secret_key.get_secret_value().encode()
    service.extra_checks |= {"model": caught_up, "accepting": gate.ready}
    publisher = Publisher(service.jetstream, settings.event_buffer)
    cache = DiskCache(settings.cache_dir / "artifacts", settings.cache_bytes, service.blobs)
    hosting = BaseModels(
        [
            await open_base_model(settings, cache, publisher, name, folder)
            for name, folder in settings.base_folders.items()
        ]
    )
    gauges.show(hosting)
    service.details["prefix_cache"] = lambda: hosting.prefixes
    preloading = Preloading(hosting, settings.activation, Predictor(settings.prediction_threshold), settings.workflows)
    projection = Projection(hosting, preloading)
    recorder = Recorder(
        service.jetstream,
        service.blobs,
        lambda: projection.consents,
        HeldForFeedback(settings.unrated_characters, settings.unrated_seconds),
        room=settings.unrecorded_characters,
    )
    projection.consents_changed = recorder.policies_changed
    watch = PressureWatch(
        hosting,
        settings.ladder,
        idle=settings.idle_eviction,
        every=settings.pressure_every,
        read=partial(memory.read, process_limit=settings.memory_limit),
    )
    embedder = (
        EmbeddingThread(settings.embedding_model, settings.embedding_model_name) if settings.embedding_model else None
    )
    shadows = Shadows(settings.shadow_queue)
    generator = Generator(
        projection=projection,
        hosting=hosting,
        preloading=preloading,
        publisher=publisher,
        ids=GenerationIds(secret, settings.replica),
        http=service.http,
        credential=service.credential,
        recorder=recorder,
        publications=Publications((publisher.backlog, recorder.backlog), settings.publish_seconds),
        router_url=settings.router_url,
        replica=settings.replica,
        fallbacks=settings.fallbacks,
        always_fall_back=settings.fallback_policy == "always",
        count_by_adapter=settings.monitoring == "detailed",
        count_adapter_ids=settings.metrics_adapter_ids,
        shadows=shadows,
        ledger=Ledger(settings.quotas),
        precedence=Precedence(settings.batch_turn_seconds),
    )
    announcements = (
        Announcements(
            service.jetstream, settings.replica, settings.replica_url, hosting, gate=gate, every=settings.announce
        )
        if settings.replica_url
        else None
    )
    replica_client = httpx.AsyncClient(trust_env=False, timeout=TIMEOUT, limits=LIMITS, verify=settings.tls.client)
    forwarding = Forwarding(announcements, replica_client, settings.load_factor)
    running = [
        *(asyncio.create_task(_forever("adapters", one.adapters.run())) for one in hosting.all),
        asyncio.create_task(_forever("publisher", publisher.run())),
        asyncio.create_task(_forever("recorder", recorder.run())),
        asyncio.create_task(_forever("old objects", keep_sweeping(service.blobs, _kept(settings)))),
        asyncio.create_task(_forever("projection", projection.run(service.jetstream))),
        asyncio.create_task(
            _forever("position", announce_position(service.jetstream, settings.replica, lambda: projection.position))
        ),
        asyncio.create_task(_forever("memory pressure", watch.run())),
        asyncio.create_task(_forever("shadows", shadows.run(generator))),
        asyncio.create_task(_set_when(projection.caught_up, ready)),
    ]
    if generator.ledger.bounds:
        running.append(
            asyncio.create_task(
                _forever("quotas", share(generator.ledger, KeyValue(service.jetstream, USED), settings.replica))
            )
        )
    if announcements is not None:
        running.append(asyncio.create_task(_forever("announcements", announcements.announce(projection.caught_up))))
        running.append(asyncio.create_task(_forever("replicas", announcements.watch())))
    parts = InferenceParts(
        hosting=hosting,
        projection=projection,
        preloading=preloading,
        cache=cache,
        watch=watch,
        gate=gate,
        generator=generator,
        recorder=recorder,
        forwarding=forwarding,
        embedder=embedder,
        rates=RateLimit(settings.requests_per_minute),
        responses=ResponseStore(KeyValue(service.jetstream, RESPONSES), secret),
        batches=BatchStore(KeyValue(service.jetstream, BATCHES), service.blobs),
        started=int(time.time()),
    )
    batches = asyncio.create_task(_forever("batches", BatchRunner(parts, settings, service.access).run()))
    try:
        yield parts
    finally:
        ready.clear()
        # Before the engine: another replica continues them, and no line ends with an error of this one's end.
        await tasks.end(batches)
        for one in hosting.all:
            await one.backend.close()
            one.vocabulary.close()
        await tasks.end(*running)
        await replica_client.aclose()
        if embedder is not None:
            embedder.close()
        with contextlib.suppress(ConnectionError):
            await publisher.drain(2.0)
            await recorder.drain(2.0)


def _kept(settings: InferenceSettings) -> dict[str, timedelta]:
    """How long objects of each kind stay. A batch may read its file for a day after that was last shown."""
    return {
        ANSWER_TEXTS: timedelta(days=settings.answer_texts_days),
        BATCH_FILES: timedelta(days=settings.batch_files_days + 2),
    }


async def _forever(name: str, work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        # Without this task the process serves stale or no adapters; its supervisor restarts it.
        log.exception("task_died", task=name)
        os.kill(os.getpid(), signal.SIGTERM)


async def _set_when(event: asyncio.Event, then: asyncio.Event) -> None:
    await event.wait()
    then.set()
