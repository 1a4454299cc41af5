"""Which layers of a base model a training adapts: the ones requested by their short names, or all of the decoder's."""

import re

from lora_core.layer_shapes import LayerShapes

_UNFIT_IN_STATES = ("out_proj",)
_STATE_MODELS = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
"""Models of which PEFT refuses a layer, because their forward passes read its weight (peft 0.21, `tuners_utils`)."""


def trainable(layers: LayerShapes) -> dict[str, tuple[str, ...]]:
    """Short name → full names of the layers that can be trained under it, in the model's order.

    Those of the text decoder, where it has such a name; other linear layers otherwise. Never the output head: TRL
    scores completions with its own weight, so an adapter there would not be trained. Never a name that stands for
    stacked experts in this model: PEFT adapts those in its place.
    """
    description = layers.description
    inside = {name for name, layer in description.layers.items() if layer.decoder} if description else set(layers)
    stacked = description.stacked if description else {}
    unfit = _UNFIT_IN_STATES if description and description.model_type in _STATE_MODELS else ()
    found: dict[str, list[str]] = {}
    for name in layers:
        short = name.rpartition(".")[2]
        if short not in stacked and short not in unfit and not _is_outside(name, layers):
            found.setdefault(short, []).append(name)
    return {short: tuple(name for name in names if name in inside) or tuple(names) for short, names in found.items()}


def _is_outside(name: str, layers: LayerShapes) -> bool:
    if layers.description is None:
        return name.rpartition(".")[2] == "lm_head"
    return layers.description.layers[name].kind != "linear"


def default_targets(layers: LayerShapes) -> tuple[str, ...]:
    """Short names of the decoder's linear layers, sorted: what a request that names none adapts."""
    description = layers.description
    fit = trainable(layers)
    if description is None:
        return tuple(sorted(fit))
    return tuple(sorted(short for short, names in fit.items() if any(description.layers[one].decoder for one in names)))


def why_not(layers: LayerShapes, target: str) -> str:
    """What the base model has under a name that cannot be trained, in words."""
    description = layers.description
    if description is None or target == "lm_head":
        return "is the output head" if target == "lm_head" else "is no layer of this base model"
    if what := description.what_is(target):
        return f"is {what}"
    if target in description.short_names:
        kinds = {layer.kind for name, layer in description.layers.items() if name.rpartition(".")[2] == target}
        if "linear" not in kinds:
            return "is the output head" if "head" in kinds else "is the input embedding"
        return f"is read by {description.model_type}'s own code, past any adapter"
    return "is no layer of this base model"


def chosen(layers: LayerShapes, targets: tuple[str, ...], last: int | None = None) -> tuple[str, ...]:
    """Full names of the layers that these targets adapt, of the last decoder layers alone, if requested.

    No targets stand for the default; names that are not there choose nothing.
    """
    fit = trainable(layers)
    names = [name for short in targets or default_targets(layers) for name in fit.get(short, ())]
    if last is not None:
        numbers = decoder_layers(layers)[-last:]
        names = [name for name in names if layer_of(name) in numbers]
    return tuple(names)


def layer_of(module: str) -> int | None:
    """The decoder layer that a module is in, by its full name."""
    numbered = re.search(r"(?:^|\.)(\d+)\.", module)
    return int(numbered[1]) if numbered else None


def decoder_layers(layers: LayerShapes) -> list[int]:
    """Numbers of the decoder layers that have linear layers."""
    description = layers.description
    inside = [name for name in layers if description is None or description.layers[name].decoder]
    return sorted({number for name in inside if (number := layer_of(name)) is not None})
