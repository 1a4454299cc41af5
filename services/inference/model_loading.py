"""Load a base model into this process: on a device, in a precision, with an engine of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog

from lora_core.generation_settings import GenerationSettings
from services.inference.loading.proof import PROBE_PROMPT
from services.inference.settings import InferenceSettings
from services.inference.slots.allocation import Room

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from lora_core.engine import ArrowEngine

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LoadedBaseModel:
    """A base model in memory."""

    engine: "ArrowEngine"
    room: Room
    """For adapters."""
    largest: int | None
    """The largest rank, where adapters share the memory of slots by their ranks."""
    threads: int
    """That compute its steps."""
    deviation: float
    """Largest difference of a logit from the float32 model's, on the probe prompt."""
    tokenizer: "PreTrainedTokenizerBase"
    revision: str
    shapes: dict[str, tuple[int, int]]
    context: int
    embeddings: int
    """Tokens that it has embeddings of."""
    own: GenerationSettings


def load_model(settings: InferenceSettings, folder: Path) -> LoadedBaseModel:
    """A base model with its engine. Raises what the loader raises for a folder that holds no model.

    Raises:
        DeviceUnavailable, TooLittleMemory: before anything is loaded.
        UnsupportedBaseModel: transformers loads no language model from the folder.
    """
    from lora_core import base_model
    from lora_core.compute_threads import compute_with, default_threads
    from lora_core.device import find_device, free_memory
    from lora_core.engine import ArrowEngine
    from lora_core.memory_plan import memory_plan
    from lora_core.slots.slot_memory import resident_when_written

    threads = settings.threads or default_threads()
    compute_with(threads)
    device = find_device(settings.device, settings.weights)
    shared = resident_when_written(device)
    room, full_slots = settings.room(settings.max_rank, shared=shared), settings.slots + settings.spare_slots
    planned = memory_plan(
        folder,
        settings.weights,
        slots=full_slots,
        max_rank=settings.max_rank,
        rows=settings.batch_rows,
        positions=settings.max_prompt_tokens + settings.max_completion_tokens,
        packed=settings.packed_weights and device.type == "cpu",
    )
    free = free_memory(device)
    log.info("base_model_planned", device=str(device), weights=settings.weights, memory=str(planned), free_bytes=free)
    if free is not None:
        planned.check(free - settings.prefix_cache_bytes, str(device))
    model, tokenizer = base_model.load(folder, settings.weights, device)
    engine = ArrowEngine(
        model,
        tokenizer,
        slots=room.slots + settings.spare_slots,
        max_rank=settings.max_rank,
        full_slots=full_slots,
        prefix_bytes=settings.prefix_cache_bytes,
        packed_weights=settings.packed_weights,
    )
    return LoadedBaseModel(
        engine=engine,
        room=room,
        largest=settings.max_rank if shared else None,
        threads=threads,
        deviation=_deviation(engine, folder) if settings.weights != "float32" or device.type != "cpu" else 0.0,
        tokenizer=tokenizer,
        revision=base_model.revision(folder),
        shapes=dict(engine.shapes),
        context=int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048)),
        embeddings=cast("torch.Tensor", model.get_input_embeddings().weight).shape[0],
        own=GenerationSettings.of(model.generation_config),
    )


def _deviation(engine: "ArrowEngine", folder: Path) -> float:
    from lora_core import base_model
    from lora_core.engine import ArrowEngine

    exact = ArrowEngine(*base_model.load(folder), slots=1, max_rank=1, packed_weights=False)
    ids = engine.tokenizer(PROBE_PROMPT)["input_ids"]
    found = float(abs(engine.next_logits(ids) - exact.next_logits(ids)).max())
    log.info("weights_are_rounded", largest_difference_of_a_logit=found)
    return found
