"""A LoRA file for llama.cpp → LoRACard: `to_gguf`'s or llama.cpp's own. No torch. Needs the package `gguf`."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lora_core.array import Array
from lora_core.base_model import linear_shapes
from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, CorruptAdapter, UnsupportedAdapter
from lora_core.interop.gguf import architecture_of, gguf_package, head_count, rope_order, tensor_names
from lora_core.interop.json_file import read_json
from lora_core.weights import LoRAWeights


def from_gguf(path: Path | str, model: Path | str) -> LoRACard:
    """Read a LoRA file; `model` is the folder of its base model. Rounded tensors (Q8_0, Q4_K …) become float32.

    Raises AdapterNotFound (no file, no model), CorruptAdapter (no GGUF, no LoRA, a tensor that is no A or B of the
    model's layers, an A without its B), UnsupportedAdapter (an architecture that is not listed or not the model's,
    invocation tokens of an aLoRA), ImportError (no `gguf`).
    """
    gguf, path, model = gguf_package(), Path(path), Path(model)
    if not path.is_file():
        raise AdapterNotFound(f"no adapter file at {path}")
    config = read_json(model / "config.json", f"no base model in {model}: config.json is missing")
    architecture = architecture_of(config)
    reader = _opened(gguf, path)
    _check_kind(gguf, reader, path, architecture.name)
    found = {tensor.name: _floats(gguf, path, tensor) for tensor in reader.tensors}
    modules = {name: module for module, name in tensor_names(gguf, linear_shapes(model), architecture, config).items()}
    weights: dict[str, LoRAWeights] = {}
    for name in sorted({tensor.rpartition(".")[0] for tensor in found}):
        a, b = found.pop(f"{name}.lora_a", None), found.pop(f"{name}.lora_b", None)
        if name not in modules or a is None or b is None:
            raise CorruptAdapter(path, f"{name} is no layer of the model with an A and a B")
        module = modules[name]
        heads = head_count(module, config) if architecture.permuted else None
        if heads:
            b = b[np.argsort(rope_order(module, len(b), heads))]
        weights[module] = LoRAWeights(a, np.ascontiguousarray(b))
    if found:
        raise CorruptAdapter(path, f"{sorted(found)[0]} is neither an A nor a B")
    ranks = Counter(own.rank for own in weights.values())
    return LoRACard(
        name=_text(reader, "general.name") or path.stem,
        rank=ranks.most_common(1)[0][0],
        alpha=_alpha(gguf, reader, path),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in weights})),
        weights=weights,
    )


def _opened(gguf: Any, path: Path) -> Any:
    try:
        return gguf.GGUFReader(path)
    except (
        ValueError,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
    ) as error:  # it trusts a file's own header
        raise CorruptAdapter(path, f"not a GGUF file that can be read: {error}") from None


def _check_kind(gguf: Any, reader: Any, path: Path, architecture: str) -> None:
    kind, adapter = _text(reader, gguf.Keys.General.TYPE), _text(reader, gguf.Keys.Adapter.TYPE)
    if kind != "adapter" or adapter != "lora":
        raise CorruptAdapter(path, f"it holds {kind or 'a model'} {adapter}".rstrip() + ", expected a LoRA adapter")
    own = _text(reader, gguf.Keys.General.ARCHITECTURE)
    if own != architecture:
        raise UnsupportedAdapter("general.architecture", own, f"{architecture!r}, which is the base model's")
    if (tokens := reader.fields.get("adapter.alora.invocation_tokens")) is not None:
        raise UnsupportedAdapter("adapter.alora.invocation_tokens", len(tokens.data), "absent: aLoRA is not applied")


def _alpha(gguf: Any, reader: Any, path: Path) -> float:
    field = reader.fields.get(gguf.Keys.Adapter.LORA_ALPHA)
    if field is None:
        raise CorruptAdapter(path, f"{gguf.Keys.Adapter.LORA_ALPHA} is missing")
    return float(field.parts[-1][0])


def _floats(gguf: Any, path: Path, tensor: Any) -> Array:
    kinds = gguf.GGMLQuantizationType
    if tensor.tensor_type in (kinds.F32, kinds.F16):
        return np.array(tensor.data)
    try:
        floats: Array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        expected = "a storage that the gguf package decodes: F32, F16, BF16, Q8_0 or another of its kinds"
        raise UnsupportedAdapter(f"{path.name}: {tensor.name}", tensor.tensor_type.name, expected) from None
    return floats


def _text(reader: Any, key: str) -> str:
    field = reader.fields.get(key)
    return bytes(field.parts[-1]).decode() if field else ""
