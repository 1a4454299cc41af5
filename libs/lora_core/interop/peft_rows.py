"""PEFT's `trainable_token_indices`: trained rows of embedding and head, as LoRA matrices of exactly their effect.

A row that takes the place of the base model's is a change of rank one: the token's one-hot vector times the difference.
So n trained tokens are an adapter of rank n with a scaling of one. On an embedding A selects the tokens and B has the
differences; on an output head it is the other way round (`peft.tuners.trainable_tokens.layer`, peft 0.21).
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from lora_core.array import FLOAT32, Array, widen
from lora_core.base_model import LOOKUPS
from lora_core.errors import InvalidAdapter, UnsupportedAdapter
from lora_core.interop.peft_tensors import BaseWeights
from lora_core.layer_shapes import LayerShapes
from lora_core.validation import MAX_RANK
from lora_core.weights import LoRAWeights

FIELD = "trainable_token_indices"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.token_adapter\.trainable_tokens_delta")


def trained_rows(
    config: Mapping[str, object], tensors: Mapping[str, Array], base: LayerShapes | None
) -> dict[str, LoRAWeights]:
    """Module → matrices, from the checkpoint's tensors for trained tokens, [tokens, size] each.

    base: all layers of the base model, with its folder: its own rows are subtracted. A head that shares the embedding's
    weight gets the embedding's rows, unless it has rows of its own.
    Raises UnsupportedAdapter without a base model or for a module that is neither embedding nor head, InvalidAdapter
    for indices that are not the base model's tokens, one for each row.
    """
    found = {match["module"]: key for key in tensors if (match := _KEY.fullmatch(key))}
    if not found:
        return {}
    if base is None or base.description is None:
        raise UnsupportedAdapter(FIELD, config.get(FIELD), "base_model=FOLDER, whose own rows these take the place of")
    rows = {_layer(module, base): (_indices(config, module), tensors[key]) for module, key in found.items()}
    for head, embedding in base.description.tied:
        if embedding in rows:
            rows.setdefault(head, rows[embedding])
    weights, rslora = BaseWeights(base), bool(config.get("use_rslora"))
    return {module: _exchanged(module, *own, base, weights, rslora=rslora) for module, own in rows.items()}


def is_of_rows(key: str) -> bool:
    """Is this tensor one of `trained_rows`?"""
    return _KEY.fullmatch(key) is not None


def _layer(module: str, base: LayerShapes) -> str:
    """The model's own name of an embedding or a head."""
    layers = base.description.layers if base.description else {}
    if module in layers and layers[module].kind != "linear":
        return module
    kind = "embedding" if module.rpartition(".")[2] in LOOKUPS else "head"
    named = [name for name, layer in layers.items() if layer.kind == kind]
    if len(named) != 1 or named[0].rpartition(".")[2] != module.rpartition(".")[2]:
        raise UnsupportedAdapter(FIELD, module, "tokens of the base model's input embedding or output head")
    return named[0]


def _indices(config: Mapping[str, object], module: str) -> list[int]:
    given = config.get(FIELD)
    if isinstance(given, dict):
        given = next((ids for name, ids in given.items() if module == name or module.endswith(f".{name}")), None)
    if not isinstance(given, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in given):
        raise InvalidAdapter(FIELD, given, f"the token ids of the rows of {module}")
    if len(given) > MAX_RANK:
        raise UnsupportedAdapter(FIELD, f"{len(given)} tokens", f"at most {MAX_RANK}: each takes a rank")
    return given


def _exchanged(
    module: str, indices: list[int], rows: Array, base: LayerShapes, weights: BaseWeights, *, rslora: bool
) -> LoRAWeights:
    embedding = base.description is not None and base.description.layers[module].kind == "embedding"
    out_features, in_features = base[module]
    vocabulary, size = (in_features, out_features) if embedding else (out_features, in_features)
    count = len(indices)
    if rows.shape != (count, size):
        raise InvalidAdapter(
            f"{module} trained tokens", list(rows.shape), f"[{count}, {size}], a row for each of {FIELD}"
        )
    if len(set(indices)) < count or not all(0 <= index < vocabulary for index in indices):
        raise InvalidAdapter(FIELD, indices, f"different token ids below {vocabulary}, the base model's vocabulary")
    own = weights.find(module, "weight")
    if own is None or own.shape != (vocabulary, size):
        raise UnsupportedAdapter(FIELD, module, "a base model whose files hold this weight as it is")
    difference = (widen(rows) - widen(own[indices])).astype(FLOAT32)
    chosen = np.zeros((count, vocabulary), FLOAT32)
    chosen[range(count), indices] = 1
    alpha = math.sqrt(count) if rslora else float(count)
    if embedding:
        return LoRAWeights(chosen, np.ascontiguousarray(difference.T), alpha)
    return LoRAWeights(difference, np.ascontiguousarray(chosen.T), alpha)
