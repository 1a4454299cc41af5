"""What the GPU benchmarks share: models of random weights made on the device, adapters for them, and timing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.report import Samples
from lora_core.card import LoRACard
from lora_core.weights import LoRAWeights

RANK = 16


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama. positions: how many tokens it was made for."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    positions: int = 4096


SMALL = Shape("1B", 2048, 16, 8192, 32, 8, 64, 49152)
LARGE = Shape("8B", 4096, 32, 14336, 32, 8, 128, 49152)
TINY = Shape("tiny", 64, 2, 128, 4, 2, 16, 512, 512)
"""Checks the harness on processors."""


def llama(shape: Shape, device: str, dtype: torch.dtype, seed: int = 0) -> PreTrainedModel:
    """A Llama of this shape with random weights, frozen, in evaluation mode."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_size,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=False,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.requires_grad_(False)
    model.train(False)
    return model


def weights_bytes(model: PreTrainedModel) -> int:
    """What a decoding step reads of the model: all weights but the embedding, of which it looks up rows."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    embedding: Any = model.get_input_embeddings().weight
    return total - int(embedding.nbytes)


def card(model: PreTrainedModel, seed: int, rank: int = RANK) -> LoRACard:
    """A random adapter for all linear layers but the head, in float16."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Any:
        return (0.02 * random.standard_normal((rows, columns), dtype=np.float32)).astype(np.float16)

    weights = {
        name: LoRAWeights(matrix(rank, module.in_features), matrix(module.out_features, rank))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    }
    targets = tuple(sorted({name.rpartition(".")[2] for name in weights}))
    return LoRACard(f"random-{seed}", rank, 2.0 * rank, targets, weights)


class Tokenizer:
    """Stands for a tokenizer where token ids are given."""

    eos_token_id = None
    chat_template = None


def wait(device: str) -> None:
    """Until the device has done all its work."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: str, repeats: int, warm: int = 2) -> Samples:
    """How long a call takes, the device's work included."""
    for _ in range(warm):
        call()
    found = []
    for _ in range(repeats):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - began)
    return Samples(tuple(found))


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches in this run: bytes read and written a second by a copy, operations of a product."""

    bandwidth: float
    arithmetic: float


def ceilings(device: str, dtype: torch.dtype) -> Ceilings:
    """Measured with random numbers; zeros would be faster."""
    size, side = (2**30, 8192) if device != "cpu" else (2**20, 64)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = seconds(lambda: target.copy_(source), device, 10).median
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    multiplied = seconds(lambda: a @ b, device, 10).median
    return Ceilings(2 * size / copied, 2 * side**3 / multiplied)
