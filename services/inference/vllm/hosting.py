"""Puts together what serves a base model from vLLM servers; of its folder only the small files are read."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_core import base_model
from lora_core.generation_settings import GenerationSettings
from services.inference.loading.artifact import Artifacts
from services.inference.loading.proof import Exactness
from services.inference.settings import InferenceSettings
from services.inference.tokenizer import Vocabulary
from services.inference.vllm.backend import VllmBackend
from services.inference.vllm.client import VllmClient
from services.inference.vllm.fleet import VllmFleet
from services.inference.vllm.loader import VllmLoader, VllmProof, neutral_card, write_peft

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Described:
    """A base model that is in memory elsewhere."""

    tokenizer: "PreTrainedTokenizerBase"
    revision: str
    shapes: dict[str, tuple[int, int]]
    context: int
    embeddings: int
    stops: frozenset[int]
    own: GenerationSettings


def describe(folder: Path) -> Described:
    """Raises what the readers raise for a folder that holds no model."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    # As transformers does when it loads a model.
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        generation = GenerationConfig.from_model_config(config)
    return Described(
        tokenizer=tokenizer,
        revision=base_model.revision(folder),
        shapes=base_model.target_shapes(folder),
        context=int(getattr(config, "max_position_embeddings", 2048)),
        embeddings=int(getattr(config.get_text_config(), "vocab_size", len(tokenizer))),
        stops=base_model.end_tokens(generation, tokenizer),
        own=GenerationSettings.of(generation),
    )


async def open_vllm(
    settings: InferenceSettings, artifacts: Artifacts, vocabulary: Vocabulary, stops: frozenset[int]
) -> tuple[VllmLoader, VllmBackend]:
    """A loader and a back end for the servers of the settings, which need not be up yet."""
    folder = (settings.vllm_adapter_dir or settings.cache_dir / "peft").resolve()
    key = settings.vllm_api_key.get_secret_value()
    base = artifacts.base
    neutral = folder / f"neutral@{base.revision[:12]}" if settings.vllm_neutral_adapter else None
    if neutral is not None:
        await asyncio.to_thread(write_peft, neutral_card(base_model.linear_shapes(settings.base_model)), neutral)
    fleet = VllmFleet(
        [VllmClient(url, key, settings.tls.client) for url in settings.vllm_servers],
        base_name=base.name,
        folder=folder,
        prove=VllmProof(vocabulary, neutral.name if neutral else base.name, Exactness(settings.vllm_tolerance)),
        copies=settings.vllm_copies,
        most=settings.vllm_max_adapters,
        every=settings.vllm_reconcile,
        neutral=neutral,
    )
    await fleet.open()
    rows = settings.batch_rows * len(settings.vllm_servers)
    backend = VllmBackend(fleet, stops=stops, rows=rows, queue_limit=settings.queue_limit)
    return VllmLoader(artifacts=artifacts, fleet=fleet, folder=folder), backend
