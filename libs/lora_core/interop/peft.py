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

from lora_core.array import Array, bits, dtype_name, narrow, widen
from lora_core.base_model import LOOKUPS, target_shapes
from lora_core.card import LoRACard, LoRAWeights
from lora_core.errors import AdapterNotFound, InvalidAdapter, UnsupportedAdapter
from lora_core.interop.json_file import read_json
from lora_core.interop.peft_patterns import ModulePatterns
from lora_core.replace_file import replace_file
from lora_core.safetensors_file import map_weights, write_weights
from lora_core.validation import has_effect

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_TEXT = 4_096  # characters of a field that is kept as the card's metadata

_PREFIX = "base_model.model."
_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+?)\.(?P<array>lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B"
    r"|lora_B\.bias|lora_magnitude_vector(?:\.weight)?|(?:base_layer\.)?bias|base_layer\.weight)"
)
_FIELDS = {
    "lora_A.weight": "a", "lora_embedding_A": "a", "lora_B.weight": "b", "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    "lora_B.bias": "lora_bias", "base_layer.bias": "base_bias", "bias": "base_bias",
}  # fmt: skip

# Settings that we honour, or that say how the adapter was trained and not what it computes.
_UNDERSTOOD = {
    "peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern", "bias",
    "init_lora_weights", "base_model_name_or_path", "task_type", "revision", "peft_version", "use_dora", "lora_bias",
}  # fmt: skip
_NEUTRAL = {
    "auto_mapping", "inference_mode", "lora_dropout", "exclude_modules", "layers_to_transform", "layers_pattern",
    "megatron_core", "qalora_group_size", "eva_config",
}  # fmt: skip
_KEPT = ("base_model_name_or_path", "task_type", "revision", "peft_version")
# These initialisations change the base weights too; without that change the saved matrices mean something else.
_BASE_CHANGING_INIT = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)


def from_peft(folder: Path | str, name: str | None = None, base_model: Path | str | None = None) -> LoRACard:
    """Read a PEFT LoRA checkpoint; its matrices are views of the mapped file. `name` defaults to the folder's.

    base_model: folder of the base model, needed where PEFT saved a copy of an adapted embedding's own weights (it does
    so by itself): they are compared, and must be the base model's.
    Raises AdapterNotFound (no checkpoint), CorruptAdapter (not JSON, not safetensors), UnsupportedAdapter (fully
    trained modules, pickle …) or InvalidAdapter.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG, f"no PEFT checkpoint in {folder}: {CONFIG} is missing")
    _refuse_unsupported(config)
    _refuse_foreign_files(folder)
    rank = _number(config, "r")
    if not isinstance(rank, int):
        raise InvalidAdapter("r", rank, "a whole number")
    alpha = float(_number(config, "lora_alpha"))
    alphas, ranks = _patterns(config, "alpha_pattern"), _patterns(config, "rank_pattern")
    weights: dict[str, LoRAWeights] = {}
    for module, arrays in _arrays(map_weights(folder / WEIGHTS), base_model).items():
        own = LoRAWeights(**arrays, alpha=alphas.value_of(module))
        expected_rank = ranks.value_of(module) or rank
        if own.a.ndim == 2 and own.rank != expected_rank and has_effect(replace(own, base_bias=None)):
            raise InvalidAdapter(f"{module} rank", own.rank, f"{expected_rank:g}, as {CONFIG} says")
        weights[module] = own
    if config.get("use_dora") and not any(own.magnitude is not None for own in weights.values()):
        raise InvalidAdapter("use_dora", True, "lora_magnitude_vector of the modules")
    metadata = {f"peft.{key}": _text(config, key) for key in _KEPT if config.get(key)}
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


def _refuse_unsupported(config: Mapping[str, object]) -> None:
    if config.get("peft_type") != "LORA":
        raise UnsupportedAdapter("peft_type", config.get("peft_type"), "LORA")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and _BASE_CHANGING_INIT.search(init):
        expected = "an adapter converted to plain LoRA (PEFT: path_initial_model_for_weight_conversion)"
        raise UnsupportedAdapter("init_lora_weights", init, expected)
    for key, value in config.items():
        if value and key not in _UNDERSTOOD and key not in _NEUTRAL:
            raise UnsupportedAdapter(key, value, "unset: lora_core does not apply it")


def _refuse_foreign_files(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file():
        for pickled in ("adapter_model.bin", "adapter_model.pt"):
            if (folder / pickled).exists():
                raise UnsupportedAdapter("weights file", pickled, f"{WEIGHTS}: pickle is never loaded")
        raise AdapterNotFound(f"no PEFT checkpoint in {folder}: {WEIGHTS} is missing")
    for inner in sorted(folder.glob(f"*/{CONFIG}")):
        expected = "one adapter in the folder (TRL leaves its reference adapter there: delete it)"
        raise UnsupportedAdapter("subfolder", f"{inner.parent.name}/", expected)


def _arrays(tensors: Mapping[str, Array], base_model: Path | str | None) -> dict[str, dict[str, Array]]:
    """Module → the fields of its LoRAWeights."""
    found: dict[str, dict[str, Array]] = {}
    copies: dict[str, Array] = {}
    for key, array in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UnsupportedAdapter("tensor", key, _tensor_expected(key))
        if match["array"] == "base_layer.weight":
            copies[match["module"]] = array
        else:
            found.setdefault(match["module"], {})[_FIELDS[match["array"]]] = array
    shapes = target_shapes(base_model) if base_model is not None else {}
    for module, arrays in found.items():
        if arrays.keys() == {"base_bias"}:
            arrays.update(_nothing(module, arrays["base_bias"], shapes))
        for name in {"a", "b"} - arrays.keys():
            raise InvalidAdapter("tensors", f"{module} without lora_{name.upper()}", "lora_A and lora_B")
    if not found:
        raise InvalidAdapter("tensors", "none", "lora_A and lora_B of at least one module")
    _check_copies(copies, base_model)
    return found


def _nothing(module: str, bias: Array, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Array]:
    """Matrices that add nothing, for a layer of which the bias alone was trained (bias="all")."""
    if module not in shapes:
        expected = "trained biases on adapted layers alone, or base_model=FOLDER in which this is a linear layer"
        raise UnsupportedAdapter("tensor", f"{module}.bias", expected)
    out_features, in_features = shapes[module]
    return {"a": np.zeros((1, in_features), bias.dtype), "b": np.zeros((out_features, 1), bias.dtype)}


def _check_copies(copies: Mapping[str, Array], base_model: Path | str | None) -> None:
    """PEFT saves the base weights of adapted embeddings beside the adapter; trained ones would be another model."""
    if not copies:
        return
    if base_model is None:
        expected = "base_model=FOLDER to compare this copy with, or a checkpoint saved with save_embedding_layers=False"
        raise UnsupportedAdapter("tensor", f"{next(iter(copies))}.base_layer.weight", expected)
    own: dict[str, Array] = {}
    for file in sorted(Path(base_model).glob("*.safetensors")):
        own |= {name.removesuffix(".weight"): array for name, array in map_weights(file).items()}
    for module, copy in copies.items():
        base = own.get(module)
        if base is None and module == "lm_head":  # tied: the file has the embedding alone
            base = next((array for name, array in own.items() if name.rpartition(".")[2] in LOOKUPS), None)
        if base is None or not _equal(base, copy):
            raise UnsupportedAdapter("tensor", f"{module}.base_layer.weight", "the base model's own weights, untrained")


def _equal(base: Array, copy: Array) -> bool:
    rounded = narrow(widen(base), dtype_name(copy))
    return rounded.shape == copy.shape and bool((bits(rounded) == bits(copy)).all())


def _tensor_expected(key: str) -> str:
    if re.search(r"\.lora_[AB]\.[^.]+\.weight$", key):
        return "one unnamed adapter (a second one, such as TRL's 'ref', leaked into the file)"
    if ".lora_" not in key:
        return "LoRA matrices alone: fully trained modules (modules_to_save) are not applied"
    return "base_model.model.<module>.lora_A.weight or lora_B.weight"


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
