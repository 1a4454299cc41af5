"""LoRACard → a GGUF file that llama.cpp loads with `--lora`: no torch. Needs the package `gguf`.

What llama.cpp does with such a file was read from its `convert_lora_to_gguf.py`, `conversion/*.py` and
`src/llama-adapter.{h,cpp}`: it looks tensors up by the base tensor's name, and scales with alpha / rank, where rank is
the tensor's own and alpha the one number that the whole file has.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lora_core.array import BFLOAT16, Array, widen
from lora_core.base_model import linear_shapes
from lora_core.card import LoRACard
from lora_core.errors import InvalidAdapter, UnsupportedAdapter
from lora_core.interop.gguf_blocks import SUPER, quantise_rows
from lora_core.interop.json_file import read_json
from lora_core.replace_file import replace_file
from lora_core.validation import check_card
from lora_core.weights import LoRAWeights

Quantisation = Literal["q8_0", "q6_k", "q4_k_m"]
"""llama.cpp's levels. Which of its kinds of blocks each matrix gets: `block_kinds`."""


@dataclass(frozen=True)
class Architecture:
    """llama.cpp's name for an architecture, and whether its q and k rows are reordered for llama.cpp's rope."""

    name: str
    permuted: bool


# Only architectures whose converter maps each linear layer to one tensor as it stands, or reorders q and k rows. Those
# that split, fuse or transpose layers (Phi-3, GPT-2, mixtures of experts …) would need their steps repeated on A and B.
_ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", permuted=True),
    "MistralForCausalLM": Architecture("llama", permuted=True),
    "SmolLM3ForCausalLM": Architecture("smollm3", permuted=True),
    "Qwen2ForCausalLM": Architecture("qwen2", permuted=False),
    "Qwen3ForCausalLM": Architecture("qwen3", permuted=False),
    # Gemma's converter adds 1 to its norms alone, which an adapter never holds.
    "GemmaForCausalLM": Architecture("gemma", permuted=False),
    "Gemma2ForCausalLM": Architecture("gemma2", permuted=False),
    "Gemma3ForCausalLM": Architecture("gemma3", permuted=False),
}
_NOT_LINEAR = ("embed_tokens", "lm_head")
_BLOCK = 32
# A level's own kind, and what values and down projections of some layers get instead.
_LEVELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "q8_0": ("Q8_0", ()),
    "q6_k": ("Q6_K", ()),
    "q4_k_m": ("Q4_K", ("Q6_K",)),
}
_FALLBACKS = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}


def to_gguf(card: LoRACard, path: Path | str, model: Path | str, quantisation: Quantisation | None = None) -> None:
    """Write the card as a LoRA file for llama.cpp; `model` is the folder of its base model (config.json, safetensors).

    float16 and float32 are kept. bfloat16 becomes float32: exact, and every backend of llama.cpp multiplies it.
    `quantisation` rounds the matrices whose rows its blocks fit, in the kinds that `block_kinds` names; the package
    `gguf` writes Q8_0 and Q5_0, `gguf_blocks` the super-blocks. Rows of B have the rank's length, so B is rounded where
    32 divides the rank.

    The file's alpha is the one that most modules have, rsLoRA's √rank included. A module that needs another factor has
    it multiplied into B, computed in float64 and rounded once to float32: within half a unit in the last place.
    The file appears whole, by one rename.

    Raises UnsupportedAdapter (an architecture that is not listed, DoRA, trained biases, adapted embeddings or output
    head, no matrix that the level's own blocks fit), InvalidAdapter (it does not fit the model, NaN), AdapterNotFound
    (no model), ImportError (no `gguf`).
    """
    gguf = gguf_package()
    path, model = Path(path), Path(model)
    if quantisation is not None and quantisation not in _LEVELS:
        raise InvalidAdapter("quantisation", quantisation, f"None or one of {', '.join(map(repr, _LEVELS))}")
    config = read_json(model / "config.json", f"no base model in {model}: config.json is missing")
    architecture = architecture_of(config)
    _refuse_unsupported(card)
    check_card(card, linear_shapes(model))
    names = tensor_names(gguf, card.weights, architecture, config)
    layers = _whole_number(config, "num_hidden_layers")
    kinds = {module: _kinds(quantisation, names[module], layers, own) for module, own in card.weights.items()}
    if quantisation and not {_LEVELS[quantisation][0], *_LEVELS[quantisation][1]} & {a for a, _ in kinds.values()}:
        widths = sorted({own.a.shape[1] for own in card.weights.values()})
        expected = f"another level: no row of {widths} numbers is a multiple of {SUPER}, which its blocks need"
        raise UnsupportedAdapter("quantisation", quantisation, expected)
    alpha = _file_alpha(card)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(partial: Path) -> None:
        writer = gguf.GGUFWriter(partial, architecture.name)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_name(card.name)
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        if quantisation:
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{quantisation.upper()}"))
        for module, weights in card.weights.items():
            b = _folded(weights, card.scaling(module) * weights.rank / alpha)
            heads = head_count(module, config) if architecture.permuted else None
            if heads:
                b = b[rope_order(module, weights.out_features, heads)]
            for letter, matrix, kind in zip("ab", (weights.a, b), kinds[module], strict=True):
                _add(gguf, writer, f"{names[module]}.lora_{letter}", _storable(matrix), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    replace_file(path, write)


def gguf_package() -> Any:
    """The package `gguf`; raises ImportError with how to install it."""
    try:
        import gguf
    except ImportError as error:
        raise ImportError("writing GGUF needs the package gguf: pip install 'gguf>=0.19'") from error
    return gguf


def architecture_of(config: Mapping[str, object]) -> Architecture:
    """What llama.cpp calls a config.json's architecture; raises UnsupportedAdapter for one that is not listed."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    if first not in _ARCHITECTURES:
        raise UnsupportedAdapter("architectures", named, f"one of {', '.join(_ARCHITECTURES)}")
    return _ARCHITECTURES[first]


def _refuse_unsupported(card: LoRACard) -> None:
    for variant in ("dora", "lora_bias", "base_bias"):
        if variant in card.variants:
            expected = "LoRA or rsLoRA: llama.cpp's adapters hold A and B alone (merge this one into the model instead)"
            raise UnsupportedAdapter("variant", variant, expected)
    for module in card.weights:
        if module.rpartition(".")[2] in _NOT_LINEAR:
            expected = "LoRA on linear layers inside the network alone: llama.cpp ties embeddings and output head"
            raise UnsupportedAdapter("module", module, expected)


def tensor_names(
    gguf: Any, modules: Iterable[str], architecture: Architecture, config: Mapping[str, object]
) -> dict[str, str]:
    """Module → the base tensor's name in llama.cpp, `blk.0.attn_q.weight`."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    known = gguf.get_tensor_name_map(kinds[architecture.name], _whole_number(config, "num_hidden_layers"))
    names = {module: known.get_name(module) for module in modules}
    for module, name in names.items():
        if name is None:
            raise UnsupportedAdapter("module", module, f"a layer that llama.cpp has for {architecture.name}")
    return {module: f"{name}.weight" for module, name in names.items()}


def _file_alpha(card: LoRACard) -> float:
    """The alpha, a float32, that spares most modules a factor: what llama.cpp divides by the rank to scale them."""
    alphas = Counter(float(np.float32(card.scaling(module) * own.rank)) for module, own in card.weights.items())
    return alphas.most_common(1)[0][0]


def _folded(weights: LoRAWeights, factor: float) -> Array:
    """B times the factor; B itself, dtype and bits, where float32 cannot distinguish the factor from 1."""
    if np.float32(factor) == 1:
        return weights.b
    with np.errstate(over="ignore"):  # refused below, with the numbers
        folded = (widen(weights.b).astype(np.float64) * factor).astype(np.float32)
    if not np.isfinite(folded).all():
        raise InvalidAdapter("B", f"more than float32 holds, times {factor:g}", "smaller numbers or alphas")
    return folded


def head_count(module: str, config: Mapping[str, object]) -> int | None:
    """How many heads the rows of this q or k projection make; None for every other layer."""
    match module.rpartition(".")[2]:
        case "k_proj" if config.get("num_key_value_heads") is not None:
            return _whole_number(config, "num_key_value_heads")
        case "q_proj" | "k_proj":
            return _whole_number(config, "num_attention_heads")
    return None


def rope_order(module: str, rows: int, heads: int) -> Array:
    """Which row llama.cpp wants at each place, [rows].

    transformers rotates dimension i of a head with i + half, llama.cpp's llama rotates neighbours 2i and 2i + 1.
    """
    if rows % (2 * heads):
        raise InvalidAdapter(f"{module} outputs", rows, f"a multiple of twice the {heads} heads in config.json")
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(rows)


def _storable(array: Array) -> Array:
    return widen(array) if array.dtype == BFLOAT16 else array


def block_kinds(quantisation: Quantisation, tensor: str, layer: int, layers: int, width: int) -> str | None:
    """The kind of blocks of a matrix with rows of `width` at a level; None where none fits, and it stays as it is.

    tensor: the base tensor's name in llama.cpp. Values and down projections of Q4_K_M get Q6_K in the first and last
    eighth of the layers and in every third between. Rows that 256 does not divide get the kind that llama.cpp falls
    back to. Source: llama.cpp, `src/llama-quant.cpp` (llama_tensor_get_type, use_more_bits, tensor_type_fallback).
    """
    own, finer = _LEVELS[quantisation]
    dear = any(part in tensor for part in ("attn_v", "ffn_down"))
    eighth = layers // 8
    more = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    kind = finer[0] if finer and dear and more else own
    if kind in _FALLBACKS and width % SUPER:
        kind = _FALLBACKS[kind]
    return kind if width % (SUPER if kind in _FALLBACKS else _BLOCK) == 0 else None


def _kinds(
    quantisation: Quantisation | None, tensor: str, layers: int, weights: LoRAWeights
) -> tuple[str | None, str | None]:
    """Of A and of B."""
    if quantisation is None:
        return None, None
    layer = int(tensor.split(".")[1]) if tensor.startswith("blk.") else 0
    widths = (weights.a.shape[1], weights.rank)
    a, b = (block_kinds(quantisation, tensor, layer, layers, width) for width in widths)
    return a, b


def _add(gguf: Any, writer: Any, name: str, array: Array, kind: str | None) -> None:
    if kind is None:
        writer.add_tensor(name, np.ascontiguousarray(array))
        return
    floats, code = np.ascontiguousarray(widen(array)), getattr(gguf.GGMLQuantizationType, kind)
    match kind:
        case "Q4_K" | "Q6_K":
            packed = quantise_rows(floats, kind)
        case _:
            packed = gguf.quants.quantize(floats, code)
    writer.add_tensor(name, packed, raw_dtype=code)


def _whole_number(config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidAdapter(f"base model's {key}", value, "a whole number of at least 1 in its config.json")
    return value
