"""What a plan's adapters add to the output of projections that are computed as one product."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch

from lora_core.layouts import PLAIN
from lora_core.slots.patched_forwards import Part, Use, expand, reduce
from lora_core.slots.row_plan import RowPlan
from lora_core.slots.slot_memory import ProjectionGroup

Addition = Callable[[torch.Tensor, torch.Tensor], None]
"""Of one layer: input [rows, tokens, in] and output [rows, tokens, out of all members], which is changed in place."""


def fusible(group: ProjectionGroup) -> bool:
    """Can all that its adapters add be added to one output?"""
    return not group.special and group.layout == PLAIN


def additions(group: ProjectionGroup, plan: RowPlan) -> Sequence[Addition]:
    """One for each layer; none where the plan adapts nothing of the group."""
    uses = [use for run in plan.runs if any((use := Use.of(group, run)).members)]
    if not uses:
        return ()
    served = [number for number in range(len(group.members)) if any(use.members[number] for use in uses)]
    ends = list(accumulate(member.out_features for member in group.members))
    spans = [(number, ends[number] - group.members[number].out_features, ends[number]) for number in served]
    short = len(uses) == 1 and uses[0].plain and uses[0].run.span == (0, plan.size)
    make = _short if short else _general
    return [make([use.part(group, layer) for use in uses], spans, plan) for layer in range(group.layers)]


def _short(parts: Sequence[Part], spans: Sequence[tuple[int, int, int]], _: RowPlan) -> Addition:
    """One run over all rows that adds nothing but its products."""
    (part,) = parts
    a, rank = part.a, part.run.rank
    slots, in_features = a.shape[0], a.shape[1]
    own = [
        (slice(number * rank, (number + 1) * rank), slice(low, high), b)
        for number, low, high in spans
        if (b := part.b[number]) is not None
    ]

    def add(x: torch.Tensor, output: torch.Tensor) -> None:
        reduced = torch.bmm(x.view(slots, -1, in_features), a)
        rows = output.view(slots, -1, output.shape[-1])
        if len(own) == 1 and own[0][2].shape[2] == rows.shape[2]:
            rows.baddbmm_(reduced[:, :, own[0][0]], own[0][2])
            return
        for of_reduced, of_output, b in own:
            # Into a part of each output row torch would compute slot by slot.
            rows[:, :, of_output] += torch.bmm(reduced[:, :, of_reduced], b)

    return add


def _general(parts: Sequence[Part], spans: Sequence[tuple[int, int, int]], plan: RowPlan) -> Addition:
    """Any mix: several runs, weights, DoRA, biases."""

    def add(x: torch.Tensor, output: torch.Tensor) -> None:
        reduced = [reduce(part, x, embedding=False) for part in parts]
        for number, low, high in spans:
            own = output[:, :, low:high]
            # DoRA scales the base layer's own output, which another adapter on the same row must not have changed.
            keep = plan.overlaps and any(part.surplus[number] is not None for part in parts)
            base = own.clone() if keep else own
            for part, factors in zip(parts, reduced, strict=True):
                b = part.b[number]
                if b is not None:
                    expand(part, number, (factors[number], b), base, own)

    return add
