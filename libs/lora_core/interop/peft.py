"""PEFT checkpoints (adapter_config.json + adapter_model.safetensors) ↔ LoRACard, over raw bytes: no torch, no pickle.

What PEFT can express and we cannot is refused by name. Written against peft 0.21 (`peft.tuners.lora.config`).
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from lora_core.array import Array
from lora_core.card import LoRACard, LoRAWeights
from lora_core.errors import AdapterNotFound, CorruptAdapter, InvalidAdapter, UnsupportedAdapter
from lora_core.safetensors_file import map_weights, write_weights

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<letter>[AB])\.weight")
_MAX_CONFIG = 1_000_000

# Settings that we honour, or that say how the adapter was trained and not what it computes.
_UNDERSTOOD = {
    "peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern", "bias",
    "init_lora_weights", "base_model_name_or_path", "task_type", "revision", "peft_version",
}  # fmt: skip
_NEUTRAL = {
    "auto_mapping", "inference_mode", "lora_dropout", "exclude_modules", "layers_to_transform", "layers_pattern",
    "megatron_core", "qalora_group_size", "ensure_weight_tying", "eva_config",
}  # fmt: skip
_KEPT = ("base_model_name_or_path", "task_type", "revision", "peft_version")
# These initialisations change the base weights too; without that change the saved matrices mean something else.
_BASE_CHANGING_INIT = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)
# Patterns are regular expressions from a stranger's file: no groups and few repeats, so that none can run for ever.
_SAFE_PATTERN = re.compile(r"[\w.^$|\\*+?\[\]-]{1,300}")
_MAX_REPEATS = 3


def from_peft(folder: Path | str, name: str | None = None) -> LoRACard:
    """Read a PEFT LoRA checkpoint; its matrices are views of the mapped file. `name` defaults to the folder's.

    Raises AdapterNotFound (no checkpoint), CorruptAdapter (not JSON, not safetensors), UnsupportedAdapter (DoRA, bias,
    modules_to_save, adapted embeddings or output head, pickle …) or InvalidAdapter.
    """
    folder = Path(folder)
    config = _read_config(folder)
    _refuse_unsupported(config)
    _refuse_foreign_files(folder)
    rank = _number(config, "r")
    if not isinstance(rank, int):
        raise InvalidAdapter("r", rank, "a whole number")
    alpha = float(_number(config, "lora_alpha"))
    alpha_pattern = _pattern(config, "alpha_pattern")
    rank_pattern = _pattern(config, "rank_pattern")
    weights: dict[str, LoRAWeights] = {}
    for module, pair in _pairs(map_weights(folder / WEIGHTS)).items():
        own = LoRAWeights(pair["A"], pair["B"], _match(alpha_pattern, module))
        expected_rank = _match(rank_pattern, module) or rank
        if own.a.ndim == 2 and own.rank != expected_rank:
            raise InvalidAdapter(f"{module} rank", own.rank, f"{expected_rank:g}, as {CONFIG} says")
        weights[module] = own
    metadata = {f"peft.{key}": str(config[key]) for key in _KEPT if config.get(key)}
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
        arrays[f"{_PREFIX}{module}.lora_A.weight"] = weights.a
        arrays[f"{_PREFIX}{module}.lora_B.weight"] = weights.b
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
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    _replace(folder / WEIGHTS, lambda path: write_weights(path, arrays, {"format": "pt"}))
    _replace(folder / CONFIG, lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read_config(folder: Path) -> Mapping[str, object]:
    path = folder / CONFIG
    if not path.is_file():
        raise AdapterNotFound(f"no PEFT checkpoint in {folder}: {CONFIG} is missing")
    if path.stat().st_size > _MAX_CONFIG:
        raise CorruptAdapter(path, f"larger than {_MAX_CONFIG} bytes")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptAdapter(path, f"not JSON: {error}") from None
    if not isinstance(config, dict):
        raise CorruptAdapter(path, "not a JSON object")
    return config


def _refuse_unsupported(config: Mapping[str, object]) -> None:
    if config.get("peft_type") != "LORA":
        raise UnsupportedAdapter("peft_type", config.get("peft_type"), "LORA")
    if config.get("bias") not in (None, "none"):
        raise UnsupportedAdapter("bias", config["bias"], "'none': trained biases are not applied")
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


def _pairs(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    pairs: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        match = _KEY.fullmatch(key)
        if match is None or ".base_layer" in key:
            raise UnsupportedAdapter("tensor", key, _tensor_expected(key))
        module = match["module"]
        if module.rpartition(".")[2] in ("lm_head", "embed_tokens"):
            raise UnsupportedAdapter("tensor", key, "LoRA on linear layers inside the network alone")
        pairs.setdefault(module, {})[match["letter"]] = array
    for module, pair in pairs.items():
        if len(pair) != 2:
            raise InvalidAdapter("tensors", f"{module} has lora_{next(iter(pair))} alone", "lora_A and lora_B")
    if not pairs:
        raise InvalidAdapter("tensors", "none", "lora_A and lora_B of at least one module")
    return pairs


def _tensor_expected(key: str) -> str:
    if "magnitude" in key:
        return "plain LoRA: DoRA magnitudes are not applied"
    if "lora_embedding" in key:
        return "no LoRA on embeddings: it is not applied"
    if re.search(r"\.lora_[AB]\.[^.]+\.weight$", key):
        return "one unnamed adapter (a second one, such as TRL's 'ref', leaked into the file)"
    if key.endswith(".bias"):
        return "no trained biases: they are not applied"
    if ".lora_" not in key:
        return "LoRA matrices alone: fully trained modules (modules_to_save) are not applied"
    return "base_model.model.<module>.lora_A.weight or lora_B.weight"


def _number(config: Mapping[str, object], key: str) -> float | int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidAdapter(key, value, f"a number in {CONFIG}")
    return value


def _pattern(config: Mapping[str, object], key: str) -> dict[str, float]:
    pattern = config.get(key) or {}
    if not isinstance(pattern, dict):
        raise InvalidAdapter(key, pattern, "an object of module pattern → number")
    for name in pattern:
        if not _SAFE_PATTERN.fullmatch(name) or name.count("*") + name.count("+") > _MAX_REPEATS:
            raise UnsupportedAdapter(key, name[:200], "module names or simple patterns without groups")
    return {name: _number(pattern, name) for name in pattern}


def _match(pattern: Mapping[str, float], module: str) -> float | None:
    """PEFT's own rule (`peft.utils.other.get_pattern_key`): the first key that matches the end of the name."""
    for key, value in pattern.items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise InvalidAdapter("pattern", key, f"a regular expression ({error})") from None
    return None
