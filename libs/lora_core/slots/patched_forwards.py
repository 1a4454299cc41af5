"""The forward functions that a group's modules have while a plan is in force.

q, k and v (or gate and up) of one layer read the same activations: one product with their stacked A matrices serves
all of them (cf. Punica, arXiv:2310.18547, and S-LoRA, arXiv:2311.03285, which fuse over rows alone).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import nn

from lora_core.slots.projection_group import ProjectionGroup
from lora_core.slots.row_plan import RowPlan, Run

Forward = Callable[[torch.Tensor], torch.Tensor]


class Slots(Protocol):
    """Neighbouring slots of one rank."""

    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def rank(self) -> int: ...


Between = TypeVar("Between", bound=Slots)


@dataclass(frozen=True, eq=False)
class Part(Generic[Between]):
    """One run at one site, ready to be applied. a: [slots, in, members · rank]; b: for each member [slots, rank, out]
    or None where no slot of the run adapts it; surplus and shift: [slots, 1, out] or None."""

    run: Between
    a: torch.Tensor
    b: tuple[torch.Tensor | None, ...]
    surplus: tuple[torch.Tensor | None, ...]
    shift: tuple[torch.Tensor | None, ...]


def forwards(group: ProjectionGroup, plan: RowPlan) -> Iterator[tuple[nn.Module, Forward]]:
    """The modules whose output the plan changes, in all layers, each with the forward function that does it."""
    uses = [use for run in plan.runs if any((use := Use.of(group, run)).members)]
    served = [number for number in range(len(group.members)) if any(use.members[number] for use in uses)]
    # One run over all rows that adds nothing but its product is what nearly every pass is: the short way.
    short = shortest(uses, plan) and not group.special
    for layer in range(group.layers if uses else 0):
        shared = _Shared(group, [use.part(group, layer) for use in uses], len(served), plan.size)
        for number in served:
            module = group.members[number].modules[layer]
            product = shared.parts[0].b[number]
            if short and product is not None:
                yield module, _short(module.forward, shared, product, number)
            else:
                yield module, _general(module.forward, shared, plan, number)


@dataclass(frozen=True, eq=False)
class Use(Generic[Between]):
    """What a run uses of a group, the same in all layers: of each member, is it adapted, has it DoRA, is it shifted."""

    run: Between
    members: list[bool]
    dora: list[bool]
    shifted: list[bool]

    @classmethod
    def of(cls, group: ProjectionGroup, run: Between) -> "Use[Between]":
        between = slice(run.low, run.high)
        flags = ([any(own[between]) for own in each] for each in zip(*(m.flags for m in group.members), strict=True))
        used, dora, shifted = flags
        return cls(run, used, dora, shifted)

    @property
    def plain(self) -> bool:
        """Two products and nothing else, weights aside."""
        return not any(self.dora) and not any(self.shifted)

    def part(self, group: ProjectionGroup, layer: int) -> Part[Between]:
        run, between = self.run, slice(self.run.low, self.run.high)

        def vectors(name: str, wanted: list[bool]) -> tuple[torch.Tensor | None, ...]:
            if not any(wanted):
                return (None,) * len(wanted)
            pairs = zip(group.members, wanted, strict=True)
            return tuple(m.vectors(name)[layer, between].unsqueeze(1) if want else None for m, want in pairs)

        b = tuple(
            group.b_of(number, run.low, run.high, run.rank, layer) if used else None
            for number, used in enumerate(self.members)
        )
        a = group.a_of(run.low, run.high, run.rank, layer)
        return Part(run, a, b, vectors("surplus", self.dora), vectors("shift", self.shifted))


def shortest(uses: Sequence[Use[Run]], plan: RowPlan) -> bool:
    """One run over all rows that adds nothing but its products?"""
    if len(uses) != 1:
        return False
    run = uses[0].run
    return uses[0].plain and run.weights is None and run.span == (0, plan.size)


class _Shared:
    """x · Aᵀ of all members, from the first of them that is called to the last.

    users: how many members there are to serve. reduced: for each part and member [slots, rows per slot · tokens, rank].
    """

    def __init__(self, group: ProjectionGroup, parts: list[Part[Run]], users: int, size: int) -> None:
        self.parts, self.size = parts, size
        self._embedding, self._flat, self._users = group.embedding, group.layout.flat, users
        self._input: torch.Tensor | None = None
        self._reduced: list[tuple[torch.Tensor, ...]] = []
        self._served = 0

    def of(self, x: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        if self._input is not x:
            self._input, self._served = x, 0
            rows = self.rows(x.unsqueeze(-1) if self._embedding else x)
            self._reduced = [reduce(part, rows, self._embedding) for part in self.parts]
        reduced = self._reduced
        self._served += 1
        if self._served == self._users:
            self._input, self._reduced = None, []
        return reduced

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """A layer's input [..., in] as [rows, vectors of a row, in]: a view wherever it can be one."""
        first = x.shape[0]
        if first != self.size and not (self._flat and first % self.size == 0):
            raise RuntimeError(f"a batch of {first} rows under a plan for {self.size}")
        if x.dim() == 3 and not self._flat:
            return x
        return x.reshape(self.size, -1, x.shape[-1])


def reduce(part: Part[Run], x: torch.Tensor, embedding: bool) -> tuple[torch.Tensor, ...]:
    """x: [rows, vectors of a row, in]; of an embedding [rows, tokens, 1]."""
    run, a = part.run, part.a
    rows = _rows(x, run)
    slots = run.high - run.low
    if embedding:
        ids = rows.reshape(slots, 1, -1).expand(-1, a.shape[2], -1)
        reduced = a.transpose(1, 2).gather(2, ids).transpose(1, 2)
    else:
        grouped = rows if rows.shape[0] == slots else rows.reshape(slots, -1, rows.shape[-1])
        reduced = torch.bmm(grouped if grouped.dtype == a.dtype else grouped.to(a.dtype), a)
    return reduced.chunk(a.shape[2] // run.rank, 2)


def _short(own: Forward, shared: _Shared, b: torch.Tensor, number: int) -> Forward:
    """The module's output plus one product, added in place."""
    slots, out_features = b.shape[0], b.shape[2]
    (part,) = shared.parts
    if part.a.shape[2] == b.shape[1]:  # a member on its own: nothing to share
        a, in_features = part.a, part.a.shape[1]

        def alone(x: torch.Tensor) -> torch.Tensor:
            rows = shared.rows(x)
            output = own(x)
            reduced = torch.bmm(rows if rows.shape[0] == slots else rows.reshape(slots, -1, in_features), a)
            output.view(slots, -1, out_features).baddbmm_(reduced, b)
            return output

        return alone

    def forward(x: torch.Tensor) -> torch.Tensor:
        reduced = shared.of(x)[0][number]
        output = own(x)
        output.view(slots, -1, out_features).baddbmm_(reduced, b)
        return output

    return forward


def _general(own: Forward, shared: _Shared, plan: RowPlan, number: int) -> Forward:
    """Any mix: several runs, weights, DoRA, biases, embeddings, quantised layers."""
    parts = shared.parts
    # DoRA scales the base layer's own output, which another adapter on the same row must not have changed before.
    keep = plan.overlaps and any(part.surplus[number] is not None for part in parts)

    def forward(x: torch.Tensor) -> torch.Tensor:
        reduced = shared.of(x)
        output = own(x)
        rows = output.view(plan.size, -1, output.shape[-1])
        base = rows.clone() if keep else rows
        for part, factor in zip(parts, reduced, strict=True):
            b = part.b[number]
            if b is not None:
                expand(part, number, (factor[number], b), base, rows)
        return output

    return forward


def expand(
    part: Part[Run], number: int, factors: tuple[torch.Tensor, torch.Tensor], base: torch.Tensor, output: torch.Tensor
) -> None:
    """Add the product of the factors, and what biases and DoRA add, to the rows of the run.

    base, output: [rows, vectors of a row, out].
    """
    run, surplus, shift = part.run, part.surplus[number], part.shift[number]
    slots, out_features = run.high - run.low, output.shape[-1]
    plain = surplus is None and shift is None and run.weights is None and output.dtype == factors[1].dtype
    if plain and run.span is not None:
        _rows(output, run).view(slots, -1, out_features).baddbmm_(*factors)
        return
    delta = torch.bmm(*factors)
    if shift is not None:
        delta += shift
    if surplus is not None:
        delta.addcmul_(_rows(base, run).reshape(slots, -1, out_features).to(delta.dtype), surplus)
    delta = delta.view(len(run.rows), -1, out_features)
    if run.weights is not None:
        delta *= run.weights
    output.index_add_(0, run.index, delta.view(len(run.rows), *output.shape[1:]).to(output.dtype))


def _rows(batch: torch.Tensor, run: Run) -> torch.Tensor:
    if run.span is None:
        return batch.index_select(0, run.index)
    return batch if run.span == (0, batch.shape[0]) else batch[run.span[0] : run.span[1]]
