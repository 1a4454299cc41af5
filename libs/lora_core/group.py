"""`Group`: the slots of projections that share an input, over all layers that have them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from lora_core.card import LoRACard
from lora_core.errors import InvalidAdapter
from lora_core.layers import Adaptable, bias_of, compute_dtype, dense_weight, dimensions
from lora_core.stack import Stack
from lora_core.tensors import to_torch

_SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


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

    b: [layers, slots, max_rank, out], scaled. surplus: [layers, slots, out], DoRA's gain less 1. shift: [layers,
    slots, out], what biases add. used, dora, shifted: for each slot, does its adapter have this.
    """

    modules: list[Adaptable]
    b: torch.Tensor
    used: list[bool]
    dora: list[bool]
    shifted: list[bool]
    _vectors: dict[str, torch.Tensor] = field(default_factory=dict)

    def vectors(self, name: str) -> torch.Tensor:
        """`surplus` or `shift`, made when it is first needed."""
        if name not in self._vectors:
            self._vectors[name] = zeros((*self.b.shape[:2], self.b.shape[3]), self.b)
        return self._vectors[name]

    def reset(self, slot: int) -> None:
        """The slot adapts nothing here."""
        for vectors in self._vectors.values():
            vectors[:, slot].zero_()
        self.used[slot] = self.dora[slot] = self.shifted[slot] = False


class Group:
    """Projections that read the same activations, in all layers where their shapes are the same.

    a: [layers, slots, members · max_rank · in]. Of each slot the first members · rank · in numbers are used, as
    [members, rank, in]: every rank has its own dense layout, one matrix product serves all members, and memory beyond
    an adapter's rank is never touched.
    """

    def __init__(self, layers: Sequence[Sequence[Adaptable]], slots: int, max_rank: int) -> None:
        first = layers[0]
        self.in_features = dimensions(first[0])[1]
        self.embedding = isinstance(first[0], nn.Embedding)
        self._like = torch.empty(0, dtype=compute_dtype(first[0]), device=first[0].weight.device)
        self._sizes = (len(layers), slots, max_rank)
        self.a = self._like  # no memory before the first adapter that needs it
        self._extents = [0] * slots  # up to which rank a slot may hold other numbers than 0
        self.members = [
            Member([layer[n] for layer in layers], self._like, [False] * slots, [False] * slots, [False] * slots)
            for n in range(len(first))
        ]

    def a_of(self, slot: int, rank: int) -> torch.Tensor:
        """The A matrices of a slot as a view, [layers, members, rank, in]."""
        count = len(self.members)
        return self.a[:, slot, : count * rank * self.in_features].view(-1, count, rank, self.in_features)

    def b_of(self, member: int, slot: int, rank: int) -> torch.Tensor:
        """The B matrices of a member's slot as a view, [layers, rank, out]."""
        return self.members[member].b[:, slot, :rank]

    def write(self, slot: int, rank: int, pieces: Sequence[Piece], card: LoRACard) -> None:
        """Fill a slot with an adapter's part here, which may be nothing; whatever it leaves open is zero.

        Raises InvalidAdapter for numbers that are not finite.
        """
        for member in self.members:
            member.reset(slot)
        if pieces and not self.a.numel():
            self._allocate()
        filled = sum(piece.count for piece in pieces if piece.stack.rank == rank)
        if filled < len(self.members) * self._sizes[0]:
            cleared = max(rank, self._extents[slot]) if pieces else self._extents[slot]
            if cleared:
                self.a_of(slot, cleared).zero_()
                for number in range(len(self.members)):
                    self.b_of(number, slot, cleared).zero_()
            self._extents[slot] = 0
        if pieces:
            self._extents[slot] = max(rank, self._extents[slot])
        for piece in pieces:
            self._fill(slot, rank, piece, card)

    def _allocate(self) -> None:
        layers, slots, max_rank = self._sizes
        self.a = zeros((layers, slots, len(self.members) * max_rank * self.in_features), self._like)
        for member in self.members:
            member.b = zeros((layers, slots, max_rank, dimensions(member.modules[0])[0]), self._like)

    def _fill(self, slot: int, rank: int, piece: Piece, card: LoRACard) -> None:
        stack, member = piece.stack, self.members[piece.member]
        source = slice(piece.first, piece.first + piece.count)
        layers = slice(piece.layer, piece.layer + piece.count)
        a = self.a_of(slot, rank)[layers, piece.member, : stack.rank]
        b = self.b_of(piece.member, slot, stack.rank)[layers]
        for name, own, given in (("a", a, stack.a), ("b", b, stack.b)):
            own.copy_(to_torch(given[source]))
            if not torch.isfinite(own.sum()):  # NaN and infinity survive a sum; a norm takes ten times as long
                raise InvalidAdapter(f"{stack.modules[piece.first]} {name}", "NaN or infinity", "finite numbers")
        scales = [card.scaling_of(stack.rank, alpha) for alpha in stack.alphas[source]]
        if set(scales) != {1.0}:
            b.mul_(scales[0] if len(set(scales)) == 1 else _column(scales, b))
        if stack.vectors:
            for index, scale in enumerate(scales):
                self._fill_vectors(slot, piece, index, scale, a[index], b[index])
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


def shared_inputs(named: Sequence[tuple[str, Adaptable]]) -> list[list[tuple[str, Adaptable]]]:
    """The modules in their order, those that read one input together."""
    found: dict[tuple[object, ...], list[tuple[str, Adaptable]]] = {}
    for name, module in named:
        parent, _, leaf = name.rpartition(".")
        family = next((family for family in _SHARED_INPUT if leaf in family), (leaf,))
        found.setdefault((parent, family, dimensions(module)[1]), []).append((name, module))
    return list(found.values())


def zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros whose memory is not resident until it is written, where the system can do that (calloc on the CPU)."""
    if like.device.type == "cpu":
        return torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8)).view(like.dtype).view(shape)
    return torch.zeros(shape, dtype=like.dtype, device=like.device)
