"""PEFT checkpoints (adapter_config.json + adapter_model.safetensors) ↔ LoRACard, over raw bytes: no torch, no pickle.

What PEFT can express and we cannot is refused by name. Written against peft 0.21 (`peft.tuners.lora.config`).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_core.array import Array
from lora_core.base_model import LOOKUPS, target_shapes
from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, InvalidAdapter, UnsupportedAdapter
from lora_core.format.safetensors_file import map_weights, write_weights
from lora_core.interop.json_file import read_json
from lora_core.interop.peft_keys import KEPT, check_keys
from lora_core.interop.peft_patterns import ModulePatterns
from lora_core.interop.peft_rows import is_of_rows, trained_rows
from lora_core.interop.peft_tensors import arrays_of
from lora_core.layer_shapes import LayerShapes
from lora_core.replace_file import replace_file
from lora_core.validation import has_effect
from lora_core.weights import LoRAWeights

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_TEXT = 4_096  # characters of a field that is kept as the card's metadata

_PREFIX = "base_model.model."


def from_peft(
    folder: Path | str, name: str | None = None, base_model: Path | str | LayerShapes | None = None
) -> LoRACard:
    """Read a PEFT LoRA checkpoint; its matrices are views of the mapped file. `name` defaults to the folder's.

    base_model: folder of the base model, or its layers (`lora_core.base_model.target_shapes`). With it, modules get
    the loaded model's names where the adapter was made on another class of it, biases that were trained on unadapted
    layers are applied, and so are trained tokens (`trainable_token_indices`). Copies of base weights, which PEFT saves
    of adapted embeddings by itself, are compared: they must be the base model's own. Files beside the two, and folders
    below, are left alone.
    Raises AdapterNotFound (no checkpoint), CorruptAdapter (not JSON, not safetensors), UnsupportedAdapter (fully
    trained modules, pickle …) or InvalidAdapter.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG, f"no PEFT checkpoint in {folder}: {CONFIG} is missing")
    check_keys(config)
    _check_weights_file(folder)
    rank = _number(config, "r")
    if not isinstance(rank, int):
        raise InvalidAdapter("r", rank, "a whole number")
    alpha = float(_number(config, "lora_alpha"))
    alphas, ranks = _patterns(config, "alpha_pattern"), _patterns(config, "rank_pattern")
    weights: dict[str, LoRAWeights] = {}
    layers = base_model if isinstance(base_model, LayerShapes | None) else target_shapes(base_model)
    tensors = map_weights(folder / WEIGHTS)
    rows = trained_rows(config, tensors, layers)
    for module, arrays in arrays_of({k: a for k, a in tensors.items() if not is_of_rows(k)}, layers).items():
        own = LoRAWeights(**arrays, alpha=alphas.value_of(module))
        expected_rank = ranks.value_of(module) or rank
        if own.a.ndim == 2 and own.rank != expected_rank and has_effect(replace(own, base_bias=None)):
            raise InvalidAdapter(f"{module} rank", own.rank, f"{expected_rank:g}, as in {CONFIG}")
        weights[module] = own
    if both := rows.keys() & weights.keys():
        expected = "trained tokens of modules that have no LoRA matrices beside them"
        raise UnsupportedAdapter("trainable_token_indices", sorted(both), expected)
    weights |= rows
    if config.get("use_dora") and not any(own.magnitude is not None for own in weights.values()):
        raise InvalidAdapter("use_dora", True, "lora_magnitude_vector of the modules")
    metadata = {f"peft.{key}": _text(config, key) for key in KEPT if config.get(key)}
    return LoRACard(
        name=name or folder.resolve().name,
        rank=rank,
        alpha=alpha,
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in weights})),
        weights=weights,
        metadata=metadata,
        rslora=bool(config.get("use_rslora")),
    )


def to_peft(card: LoRACard, folder: Path | str) -> None:
    """Write the card as a PEFT checkpoint that `PeftModel.from_pretrained` loads; dtypes are kept.

    Files are replaced atomically, the configuration last, so that a folder is never half a checkpoint.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Array] = {}
    for module, weights in card.weights.items():
        arrays |= {f"{_PREFIX}{module}.{key}": array for key, array in _peft_arrays(module, weights, card)}
    ranks = {re.escape(m): w.rank for m, w in card.weights.items() if w.rank != card.rank}
    alphas = {re.escape(m): w.alpha for m, w in card.weights.items() if w.alpha not in (None, card.alpha)}
    config: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": card.metadata.get("peft.task_type", "CAUSAL_LM"),
        "base_model_name_or_path": card.metadata.get("peft.base_model_name_or_path"),
        "revision": card.metadata.get("peft.revision"),
        "r": card.rank,
        "lora_alpha": int(card.alpha) if card.alpha == int(card.alpha) else card.alpha,
        "target_modules": sorted(card.weights),  # full names: exactly these layers, no suffix matches another
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": card.rslora,
        "use_dora": "dora" in card.variants,
        "lora_bias": "lora_bias" in card.variants,
        "lora_dropout": 0.0,
        "bias": "all" if "base_bias" in card.variants else "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    replace_file(folder / WEIGHTS, lambda path: write_weights(path, arrays, {"format": "pt"}))
    replace_file(folder / CONFIG, lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))


def _peft_arrays(module: str, weights: LoRAWeights, card: LoRACard) -> Iterator[tuple[str, Array]]:
    embedding = module.rpartition(".")[2] in LOOKUPS
    yield ("lora_embedding_A" if embedding else "lora_A.weight"), weights.a
    yield ("lora_embedding_B" if embedding else "lora_B.weight"), weights.b
    if weights.magnitude is not None:
        yield "lora_magnitude_vector", weights.magnitude
    elif "dora" in card.variants and has_effect(replace(weights, base_bias=None)):
        raise UnsupportedAdapter(module, "no magnitude", "DoRA on every module or on none: PEFT has one switch for all")
    if "lora_bias" in card.variants:  # PEFT has one switch here too; 0 adds nothing
        absent = np.zeros(weights.b.shape[:1], dtype=weights.b.dtype)
        yield "lora_B.bias", absent if weights.lora_bias is None else weights.lora_bias
    if weights.base_bias is not None:
        yield "base_layer.bias", weights.base_bias


def _check_weights_file(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file():
        for pickled in ("adapter_model.bin", "adapter_model.pt"):
            if (folder / pickled).exists():
                raise UnsupportedAdapter("weights file", pickled, f"{WEIGHTS}: pickle is never loaded")
        raise AdapterNotFound(f"no PEFT checkpoint in {folder}: {WEIGHTS} is missing")


def _number(config: Mapping[str, object], key: str) -> float | int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidAdapter(key, value, f"a number in {CONFIG}")
    return value


def _patterns(config: Mapping[str, object], key: str) -> ModulePatterns:
    given = config.get(key) or {}
    if not isinstance(given, dict):
        raise InvalidAdapter(key, given, "an object of module pattern → number")
    return ModulePatterns(key, {name: _number(given, name) for name in given})


def _text(config: Mapping[str, object], key: str) -> str:
    value = config[key]
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InvalidAdapter(key, value, f"a text of at most {MAX_TEXT} characters")
    return value
