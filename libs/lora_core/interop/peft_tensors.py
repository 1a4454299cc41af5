"""The tensors of a PEFT checkpoint → the fields of LoRAWeights by module, held against the base model's own."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lora_core.array import Array, bits, dtype_name, narrow, widen
from lora_core.errors import InvalidAdapter, UnsupportedAdapter
from lora_core.format.safetensors_file import map_weights
from lora_core.format.safetensors_header import read_header
from lora_core.interop.peft_names import HEADS, loaded_names
from lora_core.layer_shapes import LayerShapes

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+?)\.(?P<array>lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B"
    r"|lora_B\.bias|lora_magnitude_vector(?:\.weight)?|(?:base_layer\.)?bias|(?:base_layer\.)?weight)"
)
_FIELDS = {
    "lora_A.weight": "a", "lora_embedding_A": "a", "lora_B.weight": "b", "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    "lora_B.bias": "lora_bias", "base_layer.bias": "base_bias", "bias": "base_bias",
}  # fmt: skip
# What VeLoRA and MonteCLoRA need to continue training.
_TRAINING_STATE = re.compile(r".+\.(?:lora_velora_embed|lora_monteclora_sampler)(?:\..+)?")


def arrays_of(tensors: Mapping[str, Array], base: LayerShapes | None) -> dict[str, dict[str, Array]]:
    """Module → the fields of its LoRAWeights; by the loaded model's names where `base` is given.

    base: all layers of the base model, with its folder. PEFT saves copies of base weights: of embeddings and heads that
    are adapted, or requested with save_embedding_layers. They are compared, and must be the base model's own.
    Raises UnsupportedAdapter or InvalidAdapter.
    """
    found, copies = _sorted_out(tensors)
    adapted = [module for module, arrays in found.items() if arrays.keys() != {"base_bias"}]
    if not adapted:
        raise InvalidAdapter("tensors", "none", "lora_A and lora_B of at least one module")
    if base is not None:
        names = loaded_names(base, adapted)
        found = {names.get(module, module): arrays for module, arrays in found.items()}
        adapted = list(names.values())
        copies = {names.get(module, module): array for module, array in copies.items()}
    weights = BaseWeights(base) if base is not None else None
    for module in [module for module in found if module not in set(adapted)]:
        nothing = _bias_alone(module, found[module]["base_bias"], base, weights)
        if nothing is None:
            del found[module]
        else:
            found[module] |= nothing
    for module, arrays in found.items():
        for name in {"a", "b"} - arrays.keys():
            raise InvalidAdapter("tensors", f"{module} without lora_{name.upper()}", "lora_A and lora_B")
    if base is not None and base.description is not None:
        _check_vocabulary(found, base)
    for module, copy in copies.items():
        _check_copy(module, copy, weights)
    return found


def _sorted_out(tensors: Mapping[str, Array]) -> tuple[dict[str, dict[str, Array]], dict[str, Array]]:
    """What was trained, by module and field, and the copies of base weights, by module."""
    found: dict[str, dict[str, Array]] = {}
    copies: dict[str, Array] = {}
    for key, array in tensors.items():
        if _TRAINING_STATE.fullmatch(key):
            continue
        match = _KEY.fullmatch(key)
        if match is None or (match["array"] == "weight" and ".lora_" in key):
            raise UnsupportedAdapter("tensor", key, _tensor_expected(key))
        if match["array"].endswith("weight") and match["array"] not in _FIELDS:
            copies[match["module"]] = array
        else:
            found.setdefault(match["module"], {})[_FIELDS[match["array"]]] = array
    return found, copies


class BaseWeights:
    """The base model's own tensors by the loaded model's names, which its files may spell with or without a prefix."""

    def __init__(self, base: LayerShapes) -> None:
        files = sorted(base.folder.glob("*.safetensors")) if base.folder else []
        self._files: dict[str, Path] = {name: file for file in files for name in read_header(file)}
        self._tied = dict(base.description.tied) if base.description else {}
        self._heads = base.description.named(["head"]) if base.description else {}

    def find(self, module: str, kind: str) -> Array | None:
        """The tensor `module.kind`, mapped; None where the files have none of that name, or several."""
        head = module in self._heads
        keys = [key for key in self._files if key == f"{module}.{kind}"] or [
            key
            for key in self._files
            if any(_same(key, f"{name}.{kind}") for name in (module, *(HEADS if head else ())))
        ]
        if len(keys) != 1:
            return self.find(self._tied[module], kind) if module in self._tied else None
        return map_weights(self._files[keys[0]], only=keys[0])[keys[0]]


def _same(key: str, name: str) -> bool:
    return key == name or key.endswith(f".{name}") or name.endswith(f".{key}")


def _bias_alone(
    module: str, bias: Array, base: LayerShapes | None, weights: BaseWeights | None
) -> dict[str, Array] | None:
    """Matrices that add nothing, for a layer of which the bias alone was trained; None for a bias that was not."""
    if base is None or weights is None:
        expected = "trained biases on adapted layers alone, or base_model=FOLDER in which this is a linear layer"
        raise UnsupportedAdapter("tensor", f"{module}.bias", expected)
    own = weights.find(module, "bias")
    if own is not None and _equal(own, bias):
        return None
    if module not in base:
        expected = "the base model's own bias: trained biases are applied to linear layers alone, not to norms"
        raise UnsupportedAdapter("tensor", f"{module}.bias", expected)
    out_features, in_features = base[module]
    return {"a": np.zeros((1, in_features), bias.dtype), "b": np.zeros((out_features, 1), bias.dtype)}


def _check_vocabulary(found: Mapping[str, Mapping[str, Array]], base: LayerShapes) -> None:
    """An adapter on embedding or head of a resized vocabulary has that many rows, a clearer reason than its shape."""
    for module, arrays in found.items():
        layer = base.description.layers.get(module) if base.description else None
        if layer is None or layer.kind == "linear" or not arrays["a"].ndim == arrays["b"].ndim == 2:
            continue  # what is no matrix is refused by its shape
        rows, own = (
            (arrays["a"].shape[-1], layer.shape[1]) if layer.kind == "embedding" else (len(arrays["b"]), layer.shape[0])
        )
        if rows != own:
            raise _resized(module, rows, own)


def _check_copy(module: str, copy: Array, weights: BaseWeights | None) -> None:
    if weights is None:
        expected = "base_model=FOLDER to compare this copy with, or a checkpoint saved with save_embedding_layers=False"
        raise UnsupportedAdapter("tensor", f"{module}.weight", expected)
    own = weights.find(module, "weight")
    if own is not None and own.ndim == copy.ndim == 2 and own.shape[0] != copy.shape[0]:
        raise _resized(module, copy.shape[0], own.shape[0])
    if own is None or not _equal(own, copy):
        expected = "the base model's own weights, untrained: fully trained modules (modules_to_save) are not applied"
        raise UnsupportedAdapter("tensor", f"{module}.weight", expected)


def _resized(module: str, rows: int, own: int) -> UnsupportedAdapter:
    expected = (
        f"{own}, the base model's: the vocabulary was resized before training; train on the base model's own "
        "vocabulary, or save the resized model and use its folder as the base model"
    )
    return UnsupportedAdapter(f"{module} vocabulary", rows, expected)


def _equal(base: Array, copy: Array) -> bool:
    rounded = narrow(widen(base), dtype_name(copy))
    return rounded.shape == copy.shape and bool((bits(rounded) == bits(copy)).all())


def _tensor_expected(key: str) -> str:
    if re.search(r"\.lora_[AB]\.[^.]+\.weight$", key):
        return "one unnamed adapter (a second one, such as TRL's 'ref', leaked into the file)"
    if ".lora_" not in key:
        return "LoRA matrices alone: fully trained modules (modules_to_save) are not applied"
    return "base_model.model.<module>.lora_A.weight or lora_B.weight"
