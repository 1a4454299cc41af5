"""Open a base model for serving: its tokenizer, the slots of its adapters, and the back end that computes it."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import structlog

from lora_core.compute_threads import compute_with
from lora_core.prefix_cache import PrefixCache
from services.inference import metrics
from services.inference.backend import Backend, LocalBackend
from services.inference.base_models import Limits, ServedBaseModel
from services.inference.engine_thread import EngineThread
from services.inference.loading.artifact import Artifacts
from services.inference.loading.cache import DiskCache
from services.inference.loading.loader import SlotLoader
from services.inference.loading.profiled_loader import ProfiledLoader
from services.inference.loading.proof import Exactness
from services.inference.model_loading import load_model
from services.inference.publisher import Publisher
from services.inference.resolution import Base
from services.inference.settings import InferenceSettings
from services.inference.slot_events import SlotEvents
from services.inference.slots.adapters import Adapters, Loader
from services.inference.slots.allocation import Room
from services.inference.tokenizer import Vocabulary
from services.inference.vllm.hosting import describe, open_vllm

log = structlog.get_logger()


async def open_base_model(
    settings: InferenceSettings, cache: DiskCache, publisher: Publisher, name: str, folder: Path
) -> ServedBaseModel:
    """One base model with its adapters: in this process, or on the vLLM servers that the settings name for it.

    Raises what `load_model` raises.
    """
    loader: Loader
    backend: Backend
    trim: Callable[[], Awaitable[None]] | None = None
    prefixes: PrefixCache | None = None
    if settings.vllm_servers and folder == settings.base_model:
        described = await asyncio.to_thread(describe, folder)
        base, context = Base(name, described.revision), described.context
        vocabulary = Vocabulary(described.tokenizer, described.embeddings, described.stops)
        loader, backend = await open_vllm(
            settings, Artifacts(cache, described.shapes, base), vocabulary, described.stops
        )
        slots, own = settings.vllm_slots, described.own
        room = Room(slots, slots)
        log.info("base_model_on_vllm", name=name, revision=base.revision, servers=settings.vllm_servers, slots=slots)
    else:
        # A thread that ends: the threads that it computes with would stand in the way of the engine's.
        with ThreadPoolExecutor(1, thread_name_prefix="model-loading") as loading:
            model = await asyncio.get_running_loop().run_in_executor(loading, load_model, settings, folder)
        base, context = Base(name, model.revision), model.context
        vocabulary = Vocabulary(model.tokenizer, model.embeddings, model.engine.stops)
        thread = EngineThread(
            model.engine, settings.batch_rows, settings.queue_limit, begin=partial(compute_with, model.threads)
        )
        artifacts = Artifacts(cache, model.shapes, base)
        exactness = Exactness(Exactness().tolerance + 2 * model.deviation)
        loader = SlotLoader(artifacts, thread, model.engine, vocabulary, exactness, model.largest)
        backend, own = LocalBackend(thread, model.engine), model.own
        slots, room = settings.slots, model.room
        trim, prefixes = partial(thread.call, model.engine.trim), model.engine.prefixes
        if prefixes is not None:
            prefixes.counted = partial(metrics.count_prefix, name)
            metrics.count_prefix(name, 0, 0)
        if settings.quantisation == "profile":
            loader = ProfiledLoader(
                loader, artifacts, thread, model.engine, vocabulary, settings.device_profile, settings.adapter_types
            )
        log.info("base_model_loaded", name=name, revision=base.revision, slots=slots, most_adapters=room.slots)
    events = SlotEvents(publisher, settings.replica)
    adapters = Adapters(
        loader,
        slots=slots,
        room=room,
        deadline=settings.adapter_deadline,
        retry=settings.failed_retry,
        on_loaded=events.loaded,
        on_unloaded=events.unloaded,
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
    return ServedBaseModel(base, vocabulary, adapters, backend, limits, trim, own, prefixes)
