"""What inference stands on beside the kit, put together and taken down."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import structlog

from fleet_events.v1 import Adapter, AdapterLoaded, AdapterUnloaded
from fleet_kit import memory, tasks
from fleet_kit.positions import announce_position
from fleet_kit.service import Service
from lora_core.generation_settings import GenerationSettings
from services.inference.backend import Backend, LocalBackend
from services.inference.base_models import Hosted, Hosting, Limits
from services.inference.embedder import Embedder
from services.inference.engine_thread import EngineThread
from services.inference.generation import Generator
from services.inference.generation_ids import GenerationIds
from services.inference.http.drain import Gate
from services.inference.http.rate_limit import RateLimit
from services.inference.loading.artifact import Artifacts
from services.inference.loading.cache import DiskCache
from services.inference.loading.loader import SlotLoader
from services.inference.loading.profiled_loader import ProfiledLoader
from services.inference.loading.proof import PROBE_PROMPT, Exactness
from services.inference.policies.predictor import Predictor
from services.inference.policies.preloading import Preloading
from services.inference.policies.watch import PressureWatch
from services.inference.projection import Projection
from services.inference.publisher import Publisher
from services.inference.replicas.announcements import Announcements
from services.inference.replicas.forwarding import LIMITS, TIMEOUT, Forwarding
from services.inference.resolution import Base
from services.inference.settings import InferenceSettings
from services.inference.slots.adapters import Adapters, Loader
from services.inference.slots.states import Proof
from services.inference.tokenizer import Vocabulary
from services.inference.vllm.hosting import describe, open_vllm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_core.engine import ArrowEngine

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class InferenceParts:
    """The parts of inference."""

    hosting: Hosting
    projection: Projection
    preloading: Preloading
    cache: DiskCache
    watch: PressureWatch
    gate: Gate
    generator: Generator
    forwarding: Forwarding
    embedder: Embedder | None
    rates: RateLimit
    started: int


InferenceService = Service[InferenceSettings, InferenceParts]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The base model in memory."""

    engine: "ArrowEngine"
    deviation: float
    """Largest difference of a logit from the float32 model's, on the probe prompt."""
    tokenizer: "PreTrainedTokenizerBase"
    revision: str
    shapes: dict[str, tuple[int, int]]
    context: int
    own: GenerationSettings


@asynccontextmanager
async def open_parts(service: InferenceService) -> AsyncIterator[InferenceParts]:
    """Loads the base model, then follows the registry's events; ready when both are done."""
    settings = service.settings
    ready = asyncio.Event()

    async def caught_up() -> None:
        if not ready.is_set():
            raise RuntimeError("the base model is being loaded, or the stream is still being read")

    gate = Gate()
    service.extra_checks |= {"model": caught_up, "accepting": gate.ready}
    publisher = Publisher(service.jetstream, settings.event_buffer)
    cache = DiskCache(settings.cache_dir / "artifacts", settings.cache_bytes, service.blobs)
    hosting = Hosting(
        [await _host(settings, cache, publisher, name, folder) for name, folder in settings.base_folders.items()]
    )
    preloading = Preloading(hosting, settings.activation, Predictor(settings.prediction_threshold), settings.workflows)
    projection = Projection(hosting, preloading)
    watch = PressureWatch(
        hosting,
        settings.ladder,
        idle=settings.idle_eviction,
        every=settings.pressure_every,
        read=partial(memory.read, process_limit=settings.memory_limit),
    )
    embedder = Embedder(settings.embedding_model, settings.embedding_model_name) if settings.embedding_model else None
    generator = Generator(
        projection=projection,
        hosting=hosting,
        preloading=preloading,
        publisher=publisher,
        # Replicas share the key of the object store, so feedback may go to any of them.
        ids=GenerationIds(settings.s3_secret_key.get_secret_value().encode()),
        http=service.http,
        credential=service.credential,
        router_url=settings.router_url,
        replica=settings.replica,
        fallbacks=settings.fallbacks,
        always_fall_back=settings.fallback_policy == "always",
        count_by_adapter=settings.monitoring == "detailed",
        count_adapter_ids=settings.metrics_adapter_ids,
    )
    announcements = (
        Announcements(
            service.jetstream, settings.replica, settings.replica_url, hosting, gate=gate, every=settings.announce
        )
        if settings.replica_url
        else None
    )
    replica_client = httpx.AsyncClient(trust_env=False, timeout=TIMEOUT, limits=LIMITS)
    forwarding = Forwarding(announcements, replica_client, settings.load_factor)
    running = [
        *(asyncio.create_task(_forever("adapters", one.adapters.run())) for one in hosting.all),
        asyncio.create_task(_forever("publisher", publisher.run())),
        asyncio.create_task(_forever("projection", projection.run(service.jetstream))),
        asyncio.create_task(
            _forever("position", announce_position(service.jetstream, settings.replica, lambda: projection.position))
        ),
        asyncio.create_task(_forever("memory pressure", watch.run())),
        asyncio.create_task(_set_when(projection.caught_up, ready)),
    ]
    if announcements is not None:
        running.append(asyncio.create_task(_forever("announcements", announcements.announce(projection.caught_up))))
        running.append(asyncio.create_task(_forever("replicas", announcements.watch())))
    try:
        yield InferenceParts(
            hosting=hosting,
            projection=projection,
            preloading=preloading,
            cache=cache,
            watch=watch,
            gate=gate,
            generator=generator,
            forwarding=forwarding,
            embedder=embedder,
            rates=RateLimit(settings.requests_per_minute),
            started=int(time.time()),
        )
    finally:
        ready.clear()
        for one in hosting.all:
            await one.backend.close()
            one.vocabulary.close()
        await tasks.end(*running)
        await replica_client.aclose()
        if embedder is not None:
            embedder.close()
        with contextlib.suppress(ConnectionError):
            await publisher.drain(2.0)


async def _host(settings: InferenceSettings, cache: DiskCache, publisher: Publisher, name: str, folder: Path) -> Hosted:
    """One base model with its adapters: in this process, or on the servers that the settings name for it."""
    loader: Loader
    backend: Backend
    trim: Callable[[], Awaitable[None]] | None = None
    if settings.vllm_servers and folder == settings.base_model:
        told = await asyncio.to_thread(describe, folder)
        base, vocabulary, context = Base(name, told.revision), Vocabulary(told.tokenizer), told.context
        loader, backend = await open_vllm(settings, Artifacts(cache, told.shapes, base), vocabulary, told.stops)
        slots, own = settings.vllm_slots, told.own
        log.info("base_model_on_vllm", name=name, revision=base.revision, servers=settings.vllm_servers, slots=slots)
    else:
        model = await asyncio.to_thread(load_model, settings, folder)
        base, vocabulary, context = Base(name, model.revision), Vocabulary(model.tokenizer), model.context
        thread = EngineThread(model.engine, settings.batch_rows, settings.queue_limit)
        artifacts = Artifacts(cache, model.shapes, base)
        exactness = Exactness(Exactness().tolerance + 2 * model.deviation)
        loader = SlotLoader(artifacts, thread, model.engine, vocabulary, exactness)
        backend, slots, own = LocalBackend(thread, model.engine), settings.slots, model.own
        trim = partial(thread.call, model.engine.trim)
        if settings.quantisation == "profile":
            loader = ProfiledLoader(
                loader, artifacts, thread, model.engine, vocabulary, settings.device_profile, settings.adapter_types
            )
        log.info("base_model_loaded", name=name, revision=base.revision, slots=slots)
    adapters = Adapters(
        loader,
        slots=slots,
        deadline=settings.adapter_deadline,
        retry=settings.failed_retry,
        on_loaded=lambda adapter, proof, seconds: _say_loaded(publisher, settings.replica, adapter, proof, seconds),
        on_unloaded=lambda adapter, reason: _say_unloaded(publisher, settings.replica, adapter, reason),
        rules=settings.rules,
        name=name,
    )
    limits = Limits(
        settings.max_prompt_tokens,
        settings.max_completion_tokens,
        settings.default_completion_tokens,
        context,
    )
    log.info("generation_settings", name=name, **asdict(own))
    return Hosted(base, vocabulary, adapters, backend, limits, trim, own)


def load_model(settings: InferenceSettings, folder: Path) -> Loaded:
    """A base model with its engine. Raises what the loader raises for a folder that holds no model.

    Raises:
        DeviceUnavailable, TooLittleMemory: before anything is loaded.
        UnsupportedBaseModel: transformers loads no language model from the folder.
    """
    import torch

    from lora_core import base_model
    from lora_core.device import find_device, free_memory, memory_plan
    from lora_core.engine import ArrowEngine

    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = find_device(settings.device, settings.weights)
    planned = memory_plan(
        folder,
        settings.weights,
        slots=settings.engine_slots,
        max_rank=settings.max_rank,
        rows=settings.batch_rows,
        positions=settings.max_prompt_tokens + settings.max_completion_tokens,
    )
    free = free_memory(device)
    log.info("base_model_planned", device=str(device), weights=settings.weights, memory=str(planned), free_bytes=free)
    if free is not None:
        planned.check(free, str(device))
    model, tokenizer = base_model.load(folder, settings.weights, device)
    engine = ArrowEngine(model, tokenizer, slots=settings.engine_slots, max_rank=settings.max_rank)
    return Loaded(
        engine=engine,
        deviation=_deviation(engine, folder) if settings.weights != "float32" or device.type != "cpu" else 0.0,
        tokenizer=tokenizer,
        revision=base_model.revision(folder),
        shapes=dict(engine.shapes),
        context=int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048)),
        own=GenerationSettings.of(model.generation_config),
    )


def _deviation(engine: "ArrowEngine", folder: Path) -> float:
    from lora_core import base_model
    from lora_core.engine import ArrowEngine

    exact = ArrowEngine(*base_model.load(folder), slots=1, max_rank=1)
    ids = engine.tokenizer(PROBE_PROMPT)["input_ids"]
    found = float(abs(engine.next_logits(ids) - exact.next_logits(ids)).max())
    log.info("weights_are_rounded", largest_difference_of_a_logit=found)
    return found


async def _forever(name: str, work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        # Without this task the process serves stale or no adapters; whoever supervises it starts it anew.
        log.exception("task_died", task=name)
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)


async def _set_when(event: asyncio.Event, then: asyncio.Event) -> None:
    await event.wait()
    then.set()


def _say_loaded(publisher: Publisher, replica: str, adapter: Adapter, proof: Proof, seconds: float) -> None:
    log.info("adapter_loaded", adapter_id=adapter.adapter_id, modules=proof.modules_bound, delta=proof.max_delta)
    publisher.say(
        AdapterLoaded(
            adapter_id=adapter.adapter_id,
            domain=adapter.domain,
            artifact_sha256=adapter.artifact.blob.sha256,
            replica=replica,
            load_ms=seconds * 1000,
            modules_bound=proof.modules_bound,
            max_delta=proof.max_delta,
        ),
        entity=adapter.adapter_id,
    )


def _say_unloaded(publisher: Publisher, replica: str, adapter: Adapter, reason: str) -> None:
    log.info("adapter_unloaded", adapter_id=adapter.adapter_id, reason=reason)
    publisher.say(
        AdapterUnloaded(
            adapter_id=adapter.adapter_id,
            domain=adapter.domain,
            artifact_sha256=adapter.artifact.blob.sha256,
            replica=replica,
            reason=reason,
        ),
        entity=adapter.adapter_id,
    )
