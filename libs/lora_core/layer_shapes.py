"""The layers of a base model, as values: which there are, their shapes, and what cannot be adapted. No torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Layer(_Frozen):
    """A layer that LoRA can adapt.

    kind: `linear`, `embedding` (the input embedding) or `head` (the output head, a linear layer).
    shape: (out, in); an embedding leads from its vocabulary, as a one-hot row would.
    bias: whether it has one. decoder: whether it is in one of the numbered layers of the text decoder.
    """

    kind: Literal["linear", "embedding", "head"]
    shape: tuple[int, int]
    bias: bool = False
    decoder: bool = False


class Description(_Frozen):
    """A base model's layers.

    format: raised whenever the same model would get another description, which invalidates those that are kept.
    digest: of config.json and the files' tensor names and shapes, see `layout_digest`.
    transformers: version of the library that built the model. quantisation: `quant_method` of config.json, or empty.
    layers: full module name → what LoRA can adapt, in the model's order.
    others: full name of each other weight matrix (its parameter's for stacked experts) → what it is, in words.
    tied: names of layers that share one weight, in pairs (output head, embedding).
    stacked: module names of experts in the files (`gate_proj`) → the stacked parameter that they become when loaded.
    """

    format: Literal[1] = 1
    digest: str
    transformers: str
    model_type: str
    architecture: str
    quantisation: str = ""
    layers: dict[str, Layer]
    others: dict[str, str] = {}
    tied: tuple[tuple[str, str], ...] = ()
    stacked: dict[str, str] = {}

    def named(self, kinds: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Module name → (out, in) of the layers of these kinds."""
        wanted = set(kinds)
        return {name: layer.shape for name, layer in self.layers.items() if layer.kind in wanted}

    @property
    def embedding(self) -> str:
        """Full name of the input embedding; empty where LoRA cannot adapt it."""
        return next((name for name, layer in self.layers.items() if layer.kind == "embedding"), "")

    def what_is(self, leaf: str) -> str:
        """What a model has under a module's short name, other than a layer that LoRA can adapt; empty for nothing."""
        if leaf in self.stacked:
            return f"part of the stacked experts ({self.stacked[leaf]})"
        for name, kind in self.others.items():
            if leaf in name.split(".")[-2:]:
                return kind
        fused = {part: whole for whole, parts in _FUSED.items() if whole in self.short_names for part in parts}
        return f"fused into {fused[leaf]}" if leaf in fused else ""

    @property
    def short_names(self) -> frozenset[str]:
        """The last parts of the names of all adaptable layers."""
        return frozenset(name.rpartition(".")[2] for name in self.layers)


# One matrix for what other models keep apart.
_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "Wqkv": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


class LayerShapes(dict[str, tuple[int, int]]):
    """Module name → (out, in), with the description and the folder that they come from, where there are such."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        description: Description | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(shapes)
        self.description = description
        self.folder = folder
