"""Module names of an adapter that was made on another class of the same model → those of the loaded causal model.

An adapter made on AutoModel lacks `model.` (sentence embeddings, reward models); one made on a multimodal class has
`language_model` in its names, one made on the text class has not. What comes before the numbered layers is exchanged,
and only if every name is then one of the model's.
"""

import re
from collections.abc import Iterable

from lora_core.layer_shapes import LayerShapes

_NUMBERED = re.compile(r"(?:(?P<wrapper>.+?)\.)?(?P<container>[^.]+)\.\d+\..+")
_WRAPPERS = {"model", "language_model", "text_model"}
HEADS = ("lm_head", "embed_out", "head")
"""Names of output heads in files and models; transformers renames some when it loads them."""


def loaded_names(layers: LayerShapes, adapted: Iterable[str]) -> dict[str, str]:
    """Name in the adapter → name in the model. Names that cannot be mapped exactly are left as they are."""
    names = list(adapted)
    same = {name: name for name in names}
    if layers.description is None or all(name in layers for name in names):
        return same
    ours = {_wrapper(name) for name, layer in layers.description.layers.items() if layer.decoder}
    theirs = {_wrapper(name) for name in names} - {None}
    if len(ours) != 1 or len(theirs) > 1:
        return same
    (own,), other = ours, next(iter(theirs), None)
    if own is None or (other and not set(other.split(".")) <= {*own.split("."), *_WRAPPERS}):
        return same  # an image tower's layers are numbered too
    head = next((name for name, layer in layers.description.layers.items() if layer.kind == "head"), "")
    mapped = {name: _renamed(name, other or "", own, head, layers) for name in names}
    return mapped if all(name in layers for name in mapped.values()) else same


def _wrapper(name: str) -> str | None:
    numbered = _NUMBERED.fullmatch(name)
    return (numbered["wrapper"] or "") if numbered else None


def _renamed(name: str, theirs: str, ours: str, head: str, layers: LayerShapes) -> str:
    if name in layers:
        return name
    if name.rpartition(".")[2] in HEADS and head:
        return head
    inner = name.removeprefix(f"{theirs}.") if theirs else name
    return f"{ours}.{inner}" if ours else inner
