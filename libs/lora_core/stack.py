"""An adapter's matrices stacked over layers: the shape in which they are stored, and in which slots hold them.

A fleet's adapter has some 420 matrices of which at most seven shapes differ. Handled as stacks, opening a file and
filling a slot cost a dozen calls, not hundreds.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lora_core.array import Array, dtype_name
from lora_core.weights import LoRAWeights

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def projection(module: str) -> str:
    """The module's name with `*` for its layer number: `model.layers.*.self_attn.q_proj`."""
    return _LAYER.sub("*", module)


@dataclass(frozen=True, eq=False)
class Stack:
    """Modules that share rank, shapes and dtypes, in stacking order.

    a: [modules, rank, in]. b: [modules, rank, out], transposed against PEFT, so that a slot is filled by a straight
    copy and rows beyond a rank are never touched. alphas: each module's own, where it has one.
    magnitude, lora_bias, base_bias: [modules, out], see `LoRAWeights`.
    """

    modules: tuple[str, ...]
    alphas: tuple[float | None, ...]
    a: Array
    b: Array
    magnitude: Array | None = None
    lora_bias: Array | None = None
    base_bias: Array | None = None

    @classmethod
    def of(cls, module: str, weights: LoRAWeights) -> "Stack":
        """One module's weights as a stack: views, nothing is copied."""
        vectors = {name: vector[None] for name, vector in weights.vectors.items()}
        return cls((module,), (weights.alpha,), weights.a[None], weights.b.T[None], **vectors)

    @property
    def rank(self) -> int:
        return int(self.a.shape[1])

    @cached_property
    def vectors(self) -> dict[str, Array]:
        """The per-output vectors that are there, by name."""
        named = (("magnitude", self.magnitude), ("lora_bias", self.lora_bias), ("base_bias", self.base_bias))
        return {name: vector for name, vector in named if vector is not None}

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Everything in the stack by name, in the order of a file's columns."""
        return {"a": self.a, "b": self.b, **self.vectors}

    def layer(self, index: int) -> LoRAWeights:
        """One module's weights, as views."""
        vectors = {name: vector[index] for name, vector in self.vectors.items()}
        return LoRAWeights(self.a[index], self.b[index].T, self.alphas[index], **vectors)


class StackedWeights(Mapping[str, LoRAWeights]):
    """Module → weights over stacks; a module's views are made on access."""

    def __init__(self, stacks: tuple[Stack, ...]) -> None:
        self.stacks = stacks
        self._places = {module: (stack, index) for stack in stacks for index, module in enumerate(stack.modules)}

    def __getitem__(self, module: str) -> LoRAWeights:
        stack, index = self._places[module]
        return stack.layer(index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def stacked(weights: Mapping[str, LoRAWeights]) -> tuple[Stack, ...]:
    """The weights stacked over the modules that differ in their layer number alone. Copies, unless stacked already."""
    if isinstance(weights, StackedWeights):
        return weights.stacks
    groups: dict[tuple[object, ...], list[str]] = {}
    for module, own in weights.items():
        arrays = ((name, array.shape, dtype_name(array)) for name, array in own.arrays.items())
        groups.setdefault((projection(module), *arrays), []).append(module)
    stacks = []
    for modules in groups.values():
        members = [weights[module] for module in modules]
        vectors = {name: np.stack([w.vectors[name] for w in members]) for name in members[0].vectors}
        a, b = np.stack([w.a for w in members]), np.stack([w.b.T for w in members])
        stacks.append(Stack(tuple(modules), tuple(w.alpha for w in members), a, b, **vectors))
    return tuple(stacks)
