"""What a served base model takes of its device's memory, reckoned before anything is loaded. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path

from lora_core.base_model import LOOKUPS, linear_shapes
from lora_core.device import Weights
from lora_core.errors import TooLittleMemory
from lora_core.format.safetensors_header import read_header

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 4}  # int8 layers compute in float32
_PACKED_TYPES = {"llama", "mistral", "qwen2"}
_ROOM = 1.5 * 1.125  # a key/value cache grows by half of the positions that it needs, and by an eighth of the rows


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a served base model takes when all of its slots and rows are in use.

    weights: the model itself. slots: matrices of adapters of the largest rank in every slot; those for embeddings and
    output heads come on top where an adapter has them. cache: keys and values of every row at its longest.
    """

    weights: int
    slots: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.slots + self.cache

    def __str__(self) -> str:
        parts = ((self.weights, "weights"), (self.slots, "slots"), (self.cache, "cache"))
        return f"{_gigabytes(self.total)} ({', '.join(f'{name} {_gigabytes(size)}' for size, name in parts)})"

    def check(self, free: int, device: str) -> None:
        """Raises TooLittleMemory if this is more than `free` bytes."""
        if self.total > free:
            raise TooLittleMemory(
                f"the base model needs {self} on {device}, where {_gigabytes(free)} are free: take fewer slots, a lower"
                " max_rank, fewer batch_rows, shorter prompts and answers, or weights of fewer bytes"
            )


def memory_plan(
    folder: Path | str, weights: Weights, *, slots: int, max_rank: int, rows: int, positions: int, packed: bool = False
) -> MemoryPlan:
    """What a base model folder will take, from its headers and configuration alone.

    positions: tokens of a row, prompt and answer together. packed: float32 layers may be there twice, as those of
    models that `direct.decoder` computes are. Raises AdapterNotFound if the folder is no model.
    """
    folder = Path(folder)
    shapes = linear_shapes(folder)
    width = _BYTES[weights]
    layer_numbers = max_rank * sum(rows_ + columns for rows_, columns in shapes.values())
    return MemoryPlan(
        weights=_weights_bytes(folder, weights) + (_packed_bytes(folder) if packed and weights == "float32" else 0),
        slots=slots * layer_numbers * width,
        cache=int((rows + 1) * positions * _ROOM * _numbers_of_a_token(folder) * width),
    )


def _weights_bytes(folder: Path, weights: Weights) -> int:
    total = 0
    for file in folder.glob("*.safetensors"):
        for name, entry in read_header(file).items():
            numbers = 1
            for size in entry.shape:
                numbers *= size
            module, _, _ = name.rpartition(".")
            layer = len(entry.shape) == 2 and module.rpartition(".")[2] not in LOOKUPS
            total += numbers * (1 if weights == "int8" and layer else _BYTES[weights])
    return total


def _packed_bytes(folder: Path) -> int:
    """Of a second copy of all linear layers and of the output head."""
    config = json.loads((folder / "config.json").read_bytes())
    if config.get("model_type") not in _PACKED_TYPES:
        return 0
    layers = sum(rows * columns for rows, columns in linear_shapes(folder).values())
    return 4 * (layers + int(config["vocab_size"]) * int(config["hidden_size"]))


def _numbers_of_a_token(folder: Path) -> int:
    """Numbers of all layers' keys and values for one token of one row."""
    config = json.loads((folder / "config.json").read_bytes())
    config = config.get("text_config", config)
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 0)
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 0)
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 0)
    size = int(config.get("head_dim") or (hidden // heads if heads else 0))
    return 2 * layers * int(config.get("num_key_value_heads") or heads) * size


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
