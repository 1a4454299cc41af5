"""Can this adapter serve on this base model? Torch-free, so that a registry can ask at registration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lora_core.array import is_finite, is_zero, widen
from lora_core.card import LoRACard
from lora_core.errors import InvalidAdapter
from lora_core.layer_shapes import LayerShapes
from lora_core.weights import LoRAWeights

MAX_RANK = 512
MAX_ALPHA = 65_536.0


@dataclass(frozen=True)
class CheckedAdapter:
    """What a checked adapter holds. Sizes in bytes as stored; `modules` are full module names, sorted."""

    name: str
    rank: int
    max_rank: int
    alpha: float
    rslora: bool
    variants: tuple[str, ...]
    target_modules: tuple[str, ...]
    modules: tuple[str, ...]
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    metadata: Mapping[str, str]


Manifest = CheckedAdapter
"""Its former name."""


def check_card(card: LoRACard, shapes: Mapping[str, tuple[int, int]]) -> CheckedAdapter:
    """Check a card against a base model's layers (`lora_core.base_model.target_shapes`).

    Raises InvalidAdapter naming the first field that is wrong: rank or alpha out of range, a module that the model
    does not have, matrices that do not fit it, NaN or infinity, or no effect at all (every delta zero).
    """
    check_fit(card, shapes)
    for module, weights in card.weights.items():
        for name, array in weights.arrays.items():
            if not is_finite(array):
                raise InvalidAdapter(f"{module} {name}", "NaN or infinity", "finite numbers")
        if weights.magnitude is not None and not (widen(weights.magnitude) > 0).all():
            raise InvalidAdapter(f"{module} magnitude", "0 or less", "lengths above 0 (DoRA)")
    # Whether a magnitude or a base bias changes anything is a question to the base model: `ArrowEngine.bind_report`.
    if not any(has_effect(weights) for weights in card.weights.values()):
        expected = "an adapter that changes the model (is it untrained?)"
        raise InvalidAdapter("weights", "zero delta in every module", expected)
    return CheckedAdapter(
        name=card.name,
        rank=card.rank,
        max_rank=card.max_rank,
        alpha=card.alpha,
        rslora=card.rslora,
        variants=card.variants,
        target_modules=card.target_modules,
        modules=tuple(sorted(card.weights)),
        parameters=card.parameters,
        bytes=card.bytes,
        dtypes=card.dtypes,
        metadata=dict(card.metadata),
    )


def has_effect(weights: LoRAWeights) -> bool:
    """False if these matrices can add nothing but zeros to the layer's output."""
    if weights.magnitude is not None or weights.base_bias is not None:
        return True
    product = not (is_zero(weights.a) or is_zero(weights.b))
    return product or (weights.lora_bias is not None and not is_zero(weights.lora_bias))


def check_fit(card: LoRACard, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Ranges, modules and shapes alone, without reading a single weight. Raises InvalidAdapter."""
    _check_range("rank", card.rank, MAX_RANK)
    _check_range("alpha", card.alpha, MAX_ALPHA)
    for stack in card.stacks:
        for index, module in enumerate(stack.modules):
            if module not in shapes:
                raise InvalidAdapter("module", module, _modules_expected(module, shapes))
            # The matrices of a stack are alike: its further modules differ from the first in their layer's shape alone.
            if index == 0 or shapes[module] != shapes[stack.modules[0]] or stack.alphas[index] is not None:
                check_module(module, stack.layer(index), shapes[module])


def check_module(module: str, weights: LoRAWeights, shape: tuple[int, int]) -> None:
    """One module's matrices against its layer's (out, in). Raises InvalidAdapter."""
    out_features, in_features = shape
    if weights.in_features != in_features:
        expected = f"[{weights.rank}, {in_features}]: the base model's layer has {in_features} inputs"
        raise InvalidAdapter(f"{module} a shape", list(weights.a.shape), expected)
    if weights.out_features != out_features:
        expected = f"[{out_features}, {weights.rank}]: the base model's layer has {out_features} outputs"
        raise InvalidAdapter(f"{module} b shape", list(weights.b.shape), expected)
    # A rank above the layer's narrower side is wasteful and right: all-linear meets layers of a single output.
    _check_range(f"{module} rank", weights.rank, MAX_RANK)
    if weights.alpha is not None:
        _check_range(f"{module} alpha", weights.alpha, MAX_ALPHA)


def _check_range(field: str, value: float, limit: float) -> None:
    if not 0 < value <= limit:
        raise InvalidAdapter(field, value, f"more than 0 and at most {limit:g}")


def _modules_expected(module: str, shapes: Mapping[str, tuple[int, int]]) -> str:
    kinds = sorted({name.rpartition(".")[2] for name in shapes})
    example = next((name for name in shapes if re.search(r"\.\d+\.", name)), "")
    expected = f"a layer of the base model{f', such as {example}' if example else ''} ({', '.join(kinds[:12])})"
    description = shapes.description if isinstance(shapes, LayerShapes) else None
    what = description.what_is(module.rpartition(".")[2]) if description else ""
    return f"{expected}; in this model it is {what}" if what else expected
