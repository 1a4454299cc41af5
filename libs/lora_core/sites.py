"""`Site`: a group in one layer, and the hooks that add to its modules' outputs.

q, k and v (or gate and up) of one layer read the same activations: one product with their stacked A matrices serves
all of them (cf. Punica, arXiv:2310.18547, and S-LoRA, arXiv:2311.03285, which fuse over rows alone).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lora_core.group import Group, Member
from lora_core.plan import RowPlan, Run

Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]


@dataclass(frozen=True)
class _Part:
    """One run at one site, ready to be applied. a: [slots, in, members · rank]; b: for each member [slots, rank, out]
    or None where no slot of the run adapts it; surplus and shift: [slots, 1, out] or None."""

    run: Run
    a: torch.Tensor
    b: tuple[torch.Tensor | None, ...]
    surplus: tuple[torch.Tensor | None, ...]
    shift: tuple[torch.Tensor | None, ...]


class Site:
    """A group in one layer: the hooks of its modules."""

    def __init__(self, number: int, group: Group, layer: int, current: Callable[[], RowPlan | None]) -> None:
        self._number, self._group, self._layer, self._current = number, group, layer, current
        self._input: torch.Tensor | None = None
        self._reduced: list[torch.Tensor] = []
        self._served = 0

    def hook(self, member: int) -> Hook:
        """Adds, after the module's own forward, what each row's adapters add; in place."""
        current, number = self._current, self._number

        def add(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            plan = current()
            if plan is None:
                return  # the base model's own output, untouched
            parts = plan.prepared.get(number)
            if parts is None:
                parts = plan.prepared[number] = self._prepare(plan)
            if parts:
                if args[0].shape[0] != plan.size:
                    raise RuntimeError(f"a batch of {args[0].shape[0]} rows under a plan for {plan.size}")
                self._add(member, args[0], output, parts, plan.overlaps)  # type: ignore[arg-type]

        return add

    def forget(self) -> None:
        """Drop what a forward pass that did not end has left."""
        self._input, self._served = None, 0
        self._reduced = []

    def _prepare(self, plan: RowPlan) -> tuple[_Part, ...]:
        return tuple(part for run in plan.runs if (part := self._part(run)) is not None)

    def _part(self, run: Run) -> _Part | None:
        group, layer, between = self._group, self._layer, slice(run.low, run.high)
        members = group.members
        if not any(any(member.used[between]) for member in members):
            return None
        width = len(members) * run.rank
        a = group.a[layer, between, : width * group.in_features].view(-1, width, group.in_features).transpose(1, 2)

        def vectors(name: str, flags: Callable[[Member], list[bool]]) -> tuple[torch.Tensor | None, ...]:
            return tuple(
                m.vectors(name)[layer, between].unsqueeze(1) if any(flags(m)[between]) else None for m in members
            )

        b = tuple(m.b[layer, between, : run.rank] if any(m.used[between]) else None for m in members)
        return _Part(run, a, b, vectors("surplus", lambda m: m.dora), vectors("shift", lambda m: m.shifted))

    def _add(
        self, member: int, x: torch.Tensor, output: torch.Tensor, parts: tuple[_Part, ...], overlaps: bool
    ) -> None:
        if self._input is not x:
            self._input, self._served = x, 0
            self._reduced = [self._reduce(part, x) for part in parts]
        # DoRA scales the base layer's own output, which another adapter on the same row must not have changed yet.
        base = output.clone() if overlaps and any(part.surplus[member] is not None for part in parts) else output
        for part, reduced in zip(parts, self._reduced, strict=True):
            b = part.b[member]
            if b is not None:
                rank = part.run.rank
                delta = (reduced[:, :, member * rank : (member + 1) * rank], b)
                _expand(part.run, delta, part.surplus[member], part.shift[member], base, output)
        self._served += 1
        if self._served == len(self._group.members):
            self.forget()

    def _reduce(self, part: _Part, x: torch.Tensor) -> torch.Tensor:
        """x · Aᵀ for all members, [slots, rows per slot · tokens, members · rank]."""
        run = part.run
        rows = x if run.span == (0, x.shape[0]) else _rows(x, run)
        if self._group.embedding:
            ids = rows.reshape(run.high - run.low, 1, -1)
            return part.a.transpose(1, 2).gather(2, ids.expand(-1, part.a.shape[2], -1)).transpose(1, 2)
        grouped = rows.reshape(run.high - run.low, -1, x.shape[-1])
        return torch.bmm(grouped if grouped.dtype == part.a.dtype else grouped.to(part.a.dtype), part.a)


def _expand(  # noqa: PLR0917  (tensors of one step)
    run: Run,
    factors: tuple[torch.Tensor, torch.Tensor],
    surplus: torch.Tensor | None,
    shift: torch.Tensor | None,
    base: torch.Tensor,
    output: torch.Tensor,
) -> None:
    """Add the product of the factors, and what biases and DoRA add, to the rows of the run."""
    slots, out_features = run.high - run.low, output.shape[-1]
    plain = surplus is None and shift is None and run.weights is None and output.dtype == factors[1].dtype
    if plain and run.span is not None:
        rows = output if run.span == (0, output.shape[0]) else output[run.span[0] : run.span[1]]
        rows.view(slots, -1, out_features).baddbmm_(*factors)
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
    return batch.index_select(0, run.index) if run.span is None else batch[run.span[0] : run.span[1]]
