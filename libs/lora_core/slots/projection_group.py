"""`ProjectionGroup`: projections that read one input, and their place in the memory of slots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from lora_core.card import LoRACard
from lora_core.errors import InvalidAdapter
from lora_core.int8 import Int8Linear
from lora_core.layers import (
    SHARED_INPUT,
    Adaptable,
    bias_of,
    compute_dtype,
    dense_weight,
    dimensions,
    is_quantised,
    output_scale,
)
from lora_core.layouts import PLAIN, Layout
from lora_core.slots.slot_memory import SlotMemory, zeros
from lora_core.stack import Stack
from lora_core.tensors import to_torch


@dataclass(frozen=True, eq=False)
class Piece:
    """Part of a card's stack that fills neighbouring layers of one member: stack[first : first + count] → layers."""

    member: int
    layer: int
    stack: Stack
    first: int
    count: int


@dataclass
class Member:
    """One projection of a group, over all layers.

    offset: its place in the memory. surplus: [layers, slots, out], DoRA's gain less 1. shift: [layers, slots, out],
    what biases add. used, dora, shifted: for each slot, does its adapter have this.
    """

    modules: list[Adaptable]
    offset: int
    out_features: int
    used: list[bool]
    dora: list[bool]
    shifted: list[bool]
    like: torch.Tensor
    _vectors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def flags(self) -> tuple[list[bool], list[bool], list[bool]]:
        """Of each slot: used, dora, shifted."""
        return self.used, self.dora, self.shifted

    def vectors(self, name: str) -> torch.Tensor:
        """`surplus` or `shift`, made when it is first needed."""
        if name not in self._vectors:
            self._vectors[name] = zeros((len(self.modules), len(self.used), self.out_features), self.like)
        return self._vectors[name]

    def exchange(self, slot: int, other: int) -> None:
        """What the two slots adapt here."""
        for vectors in self._vectors.values():
            vectors[:, [slot, other]] = vectors[:, [other, slot]]
        for flags in self.flags:
            flags[slot], flags[other] = flags[other], flags[slot]

    def reset(self, slot: int) -> None:
        """The slot adapts nothing here."""
        for vectors in self._vectors.values():
            vectors[:, slot].zero_()
        self.used[slot] = self.dora[slot] = self.shifted[slot] = False


class ProjectionGroup:
    """Projections that read the same activations, in all layers where their shapes are the same.

    Of a slot of rank r its place in the memory holds A as [layers, members, r, in], so that one matrix product serves
    all members, and for each member B as [layers, r, out], scaled.
    """

    def __init__(
        self, layers: Sequence[Sequence[Adaptable]], slots: int, memory: SlotMemory, layout: Layout = PLAIN
    ) -> None:
        first = layers[0]
        self.memory, self.layout = memory, layout
        self.in_features = dimensions(first[0])[1]
        self.embedding = isinstance(first[0], nn.Embedding)
        like = torch.empty(0, dtype=compute_dtype(first[0]), device=first[0].weight.device)
        self.layers = len(layers)
        # Not simply [rows, tokens, in] in the dtype of the slots: forward functions look twice.
        self.special = self.embedding or (is_quantised(first[0]) and not isinstance(first[0], Int8Linear))
        self._offset = memory.reserve(len(layers) * len(first) * self.in_features)
        self.members = []
        for number, module in enumerate(first):
            own, out_features = [layer[number] for layer in layers], dimensions(module)[0]
            offset = memory.reserve(len(layers) * out_features)
            no = [False] * slots
            self.members.append(Member(own, offset, out_features, no, no.copy(), no.copy(), like))

    def a_of(self, low: int, high: int, rank: int, layer: int) -> torch.Tensor:
        """One layer's A matrices of neighbouring slots, transposed, as a view: [slots, in, members · rank]."""
        width = len(self.members) * rank
        start = self._offset * rank + layer * width * self.in_features
        return self.memory.view(low, (high - low, self.in_features, width), (1, self.in_features), start)

    def b_of(self, member: int, low: int, high: int, rank: int, layer: int) -> torch.Tensor:
        """One layer's B matrices of neighbouring slots as a view, [slots, rank, out]."""
        own = self.members[member]
        start = own.offset * rank + layer * rank * own.out_features
        return self.memory.view(low, (high - low, rank, own.out_features), (own.out_features, 1), start)

    def a_place(self, layer: int) -> int:
        """Where one layer's A matrices begin in a slot, in numbers for each rank of its adapter."""
        return self._offset + layer * len(self.members) * self.in_features

    def b_place(self, member: int, layer: int) -> int:
        """Where one layer's B matrix of a member begins in a slot, in numbers for each rank of its adapter."""
        own = self.members[member]
        return own.offset + layer * own.out_features

    def size(self, piece: Piece) -> int:
        """How many numbers a piece fills at its own rank."""
        return piece.count * piece.stack.rank * (self.in_features + self.members[piece.member].out_features)

    def write(self, slot: int, rank: int, piece: Piece, card: LoRACard) -> None:
        """Fill part of a slot of this rank. Raises InvalidAdapter for numbers that are not finite."""
        stack, member = piece.stack, self.members[piece.member]
        source = slice(piece.first, piece.first + piece.count)
        layers = slice(piece.layer, piece.layer + piece.count)
        numbers, count = self.memory.numbers[slot], len(self.members)
        every_a = numbers.narrow(0, self._offset * rank, self.layers * count * rank * self.in_features)
        every_b = numbers.narrow(0, member.offset * rank, self.layers * rank * member.out_features)
        a = every_a.view(-1, count, rank, self.in_features)[layers, piece.member, : stack.rank]
        b = every_b.view(-1, rank, member.out_features)[layers, : stack.rank]
        for name, own, given in (("a", a, stack.a), ("b", b, stack.b)):
            own.copy_(to_torch(given[source]).to(own.device))  # the device turns half precision into its own faster
            if not torch.isfinite(own.sum()):  # NaN and infinity survive a sum; a norm takes ten times as long
                raise InvalidAdapter(f"{stack.modules[piece.first]} {name}", "NaN or infinity", "finite numbers")
        scales = [card.scaling_of(stack.rank, alpha) for alpha in stack.alphas[source]]
        if set(scales) != {1.0}:
            b.mul_(scales[0] if len(set(scales)) == 1 else _column(scales, b))
        if stack.vectors:
            for index, scale in enumerate(scales):
                self._fill_vectors(slot, piece, index, scale, a[index], b[index])
        if (factor := output_scale(member.modules[piece.layer])) != 1:
            b.mul_(factor)
        member.used[slot] = True

    def _fill_vectors(  # noqa: PLR0917
        self, slot: int, piece: Piece, index: int, scale: float, a: torch.Tensor, b: torch.Tensor
    ) -> None:
        """One layer's DoRA and biases: output · (1 + surplus) + shift + the delta of a and b, which DoRA scales too."""
        member, layer = self.members[piece.member], piece.layer + index
        module = member.modules[layer]
        own = {name: to_torch(v[piece.first + index]).to(b) for name, v in piece.stack.vectors.items()}
        base_bias = bias_of(module)
        shift = torch.zeros(b.shape[1], dtype=b.dtype, device=b.device)
        if "lora_bias" in own:
            shift += own["lora_bias"] * scale
        if "base_bias" in own:
            shift += own["base_bias"] - (0 if base_bias is None else base_bias)
        if "magnitude" in own:
            gain = own["magnitude"] / torch.linalg.vector_norm(dense_weight(module).to(b.dtype) + b.t() @ a, dim=1)
            b.mul_(gain)
            member.vectors("surplus")[layer, slot] = gain - 1
            member.dora[slot] = True
            if base_bias is not None:  # DoRA scales what the weight gives, not the bias in the layer's output
                shift -= (gain - 1) * base_bias
        if shift.any():
            member.vectors("shift")[layer, slot] = shift
            member.shifted[slot] = True


def _column(scales: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(scales, dtype=like.dtype, device=like.device).view(-1, 1, 1)


def shared_inputs(
    named: Sequence[tuple[str, Adaptable]], layouts: Mapping[str, Layout]
) -> list[list[tuple[str, Adaptable]]]:
    """The modules in their order, those that read one input together."""
    found: dict[tuple[object, ...], list[tuple[str, Adaptable]]] = {}
    for name, module in named:
        parent, _, leaf = name.rpartition(".")
        family = next((family for family in SHARED_INPUT if leaf in family), (leaf,))
        found.setdefault((parent, family, dimensions(module)[1], layouts[name]), []).append((name, module))
    return list(found.values())
