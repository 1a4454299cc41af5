"""`Site`: a group in one layer, and the forward functions that its modules have while a plan is in force.

q, k and v (or gate and up) of one layer read the same activations: one product with their stacked A matrices serves
all of them (cf. Punica, arXiv:2310.18547, and S-LoRA, arXiv:2311.03285, which fuse over rows alone).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lora_core.group import Group, Member
from lora_core.layers import is_quantised
from lora_core.plan import RowPlan, Run

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Part:
    """One run at one site, ready to be applied. a: [slots, in, members · rank]; b: for each member [slots, rank, out]
    or None where no slot of the run adapts it; surplus and shift: [slots, 1, out] or None."""

    run: Run
    a: torch.Tensor
    b: tuple[torch.Tensor | None, ...]
    surplus: tuple[torch.Tensor | None, ...]
    shift: tuple[torch.Tensor | None, ...]

    @property
    def plain(self) -> bool:
        """Two products and nothing else."""
        return self.run.weights is None and not any(v is not None for v in (*self.surplus, *self.shift))


class Site:
    """A group in one layer."""

    def __init__(self, group: Group, layer: int) -> None:
        self._group, self._layer = group, layer

    def forwards(self, plan: RowPlan) -> Iterator[tuple[nn.Module, Forward]]:
        """The modules whose output the plan changes, each with the forward function that does it."""
        parts = [part for run in plan.runs if (part := self._part(run)) is not None]
        members = self._group.members
        shared = _Shared(
            self._group, parts, sum(any(part.b[n] is not None for part in parts) for n in range(len(members)))
        )
        for number, member in enumerate(members):
            products = [b for part in parts if (b := part.b[number]) is not None]
            if not products:
                continue
            module = member.modules[self._layer]
            # One run over all rows that adds nothing but its product is what nearly every pass is: the short way.
            whole = len(parts) == 1 and parts[0].plain and parts[0].run.span == (0, plan.size)
            if whole and not self._group.embedding and not is_quantised(module):
                yield module, _short(module.forward, shared, plan.size, products[0], number)
            else:
                yield module, _general(module.forward, shared, plan, number)

    def _part(self, run: Run) -> Part | None:
        group, layer, between = self._group, self._layer, slice(run.low, run.high)
        members = group.members
        if not any(any(member.used[between]) for member in members):
            return None

        def vectors(name: str, flags: Callable[[Member], list[bool]]) -> tuple[torch.Tensor | None, ...]:
            return tuple(
                m.vectors(name)[layer, between].unsqueeze(1) if any(flags(m)[between]) else None for m in members
            )

        b = tuple(
            group.b_of(number, between, run.rank, layer) if any(m.used[between]) else None
            for number, m in enumerate(members)
        )
        a = group.a_of(between, run.rank, layer).transpose(1, 2)
        return Part(run, a, b, vectors("surplus", lambda m: m.dora), vectors("shift", lambda m: m.shifted))


class _Shared:
    """x · Aᵀ of all members, from the first of them that is called to the last.

    users: how many members there are to serve. reduced: for each part and member [slots, rows per slot · tokens, rank].
    """

    def __init__(self, group: Group, parts: list[Part], users: int) -> None:
        self._embedding, self._parts, self._users = group.embedding, parts, users
        self._input: torch.Tensor | None = None
        self._reduced: list[tuple[torch.Tensor, ...]] = []
        self._served = 0

    def of(self, x: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        if self._input is not x:
            self._input, self._served = x, 0
            self._reduced = [_reduce(part, x, self._embedding) for part in self._parts]
        reduced = self._reduced
        self._served += 1
        if self._served == self._users:
            self._input, self._reduced = None, []
        return reduced


def _reduce(part: Part, x: torch.Tensor, embedding: bool) -> tuple[torch.Tensor, ...]:
    run, a = part.run, part.a
    rows = _rows(x, run)
    slots = run.high - run.low
    if embedding:
        ids = rows.reshape(slots, 1, -1).expand(-1, a.shape[2], -1)
        reduced = a.transpose(1, 2).gather(2, ids).transpose(1, 2)
    else:
        grouped = rows if rows.shape[0] == slots else rows.reshape(slots, -1, rows.shape[-1])
        reduced = torch.bmm(grouped if grouped.dtype == a.dtype else grouped.to(a.dtype), a)
    return torch.split(reduced, run.rank, 2)


def _short(own: Forward, shared: _Shared, size: int, b: torch.Tensor, number: int) -> Forward:
    """The module's output plus one product, added in place."""
    slots, out_features = b.shape[0], b.shape[2]

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] != size:
            raise RuntimeError(f"a batch of {x.shape[0]} rows under a plan for {size}")
        output = own(x)
        rows = output if output.shape[0] == slots else output.view(slots, -1, out_features)
        rows.baddbmm_(shared.of(x)[0][number], b)
        return output

    return forward


def _general(own: Forward, shared: _Shared, plan: RowPlan, number: int) -> Forward:
    """Any mix: several runs, weights, DoRA, biases, embeddings, quantised layers."""
    parts = shared._parts
    # DoRA scales the base layer's own output, which another adapter on the same row must not have changed before.
    keep = plan.overlaps and any(part.surplus[number] is not None for part in parts)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] != plan.size:
            raise RuntimeError(f"a batch of {x.shape[0]} rows under a plan for {plan.size}")
        output = own(x)
        base = output.clone() if keep else output
        for part, reduced in zip(parts, shared.of(x), strict=True):
            b = part.b[number]
            if b is not None:
                _expand(part, number, (reduced[number], b), base, output)
        return output

    return forward


def _expand(
    part: Part, number: int, factors: tuple[torch.Tensor, torch.Tensor], base: torch.Tensor, output: torch.Tensor
) -> None:
    """Add the product of the factors, and what biases and DoRA add, to the rows of the run."""
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
