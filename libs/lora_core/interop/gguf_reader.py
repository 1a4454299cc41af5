"""A LoRA file for llama.cpp → LoRACard: what `to_gguf` wrote, read back. No torch. Needs the package `gguf`."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lora_core.array import Array
from lora_core.base_model import linear_shapes
from lora_core.card import LoRACard, LoRAWeights
from lora_core.errors import AdapterNotFound, CorruptAdapter
from lora_core.interop.gguf import architecture_of, gguf_package, head_count, rope_order, tensor_names
from lora_core.interop.json_file import read_json


def from_gguf(path: Path | str, model: Path | str) -> LoRACard:
    """Read a LoRA file of float32 or float16 tensors; `model` is the folder of its base model.

    Raises AdapterNotFound (no file, no model), CorruptAdapter (a tensor that is no A or B of the model's layers, an A
    without its B, rounded tensors), UnsupportedAdapter (an architecture that is not listed), ImportError (no `gguf`).
    """
    gguf, path, model = gguf_package(), Path(path), Path(model)
    if not path.is_file():
        raise AdapterNotFound(f"no adapter file at {path}")
    config = read_json(model / "config.json", f"no base model in {model}: config.json is missing")
    architecture = architecture_of(config)
    reader = gguf.GGUFReader(path)
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
        alpha=float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].parts[-1][0]),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in weights})),
        weights=weights,
    )


def _floats(gguf: Any, path: Path, tensor: Any) -> Array:
    if tensor.tensor_type not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        raise CorruptAdapter(path, f"{tensor.name} is {tensor.tensor_type.name}, expected F32 or F16")
    return np.array(tensor.data)


def _text(reader: Any, key: str) -> str:
    field = reader.fields.get(key)
    return bytes(field.parts[-1]).decode() if field else ""
