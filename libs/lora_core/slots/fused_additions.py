"""What a plan's adapters add to the output of projections that are computed as one product."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch

from lora_core.layouts import PLAIN
from lora_core.slots.lanes import LaneRun, Lanes
from lora_core.slots.patched_forwards import Part, Use, expand, reduce, shortest
from lora_core.slots.projection_group import ProjectionGroup
from lora_core.slots.row_plan import RowPlan, Run

Addition = Callable[[torch.Tensor, torch.Tensor], None]
"""Of one layer: input [rows, tokens, in] and output [rows, tokens, out of all members], which is changed in place."""
Spans = Sequence[tuple[int, int, int]]
"""Of each member that is served its number, and where its outputs begin and end."""


def fusible(group: ProjectionGroup) -> bool:
    """Can all that its adapters add be added to one output?"""
    return not group.special and group.layout == PLAIN


def of_prompts(group: ProjectionGroup, plan: RowPlan) -> Sequence[Addition]:
    """One for each layer, for any number of tokens; none where the plan adapts nothing of the group."""
    uses = [use for run in plan.runs if any((use := Use.of(group, run)).members)]
    if not uses:
        return ()
    spans = _spans(group, uses)
    make = _short if shortest(uses, plan) else _general
    return [make([use.part(group, layer) for use in uses], spans, plan) for layer in range(group.layers)]


def of_step(group: ProjectionGroup, plan: RowPlan) -> Sequence[Addition]:
    """The same for one token of each row, in fewer calls where slots have different numbers of rows."""
    lanes = plan.lanes
    uses = [use for run in lanes.runs if any((use := Use.of(group, run)).members)]
    if not uses:
        return ()
    spans = _spans(group, uses)
    return [_step([use.part(group, layer) for use in uses], spans, lanes) for layer in range(group.layers)]


def _spans(group: ProjectionGroup, uses: Sequence[Use[Run]] | Sequence[Use[LaneRun]]) -> Spans:
    ends = [0, *accumulate(member.out_features for member in group.members)]
    spans = [(number, *bounds) for number, bounds in enumerate(pairwise(ends))]
    return [span for span in spans if any(use.members[span[0]] for use in uses)]


def _short(parts: Sequence[Part[Run]], spans: Spans, _: RowPlan) -> Addition:
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


def _general(parts: Sequence[Part[Run]], spans: Spans, plan: RowPlan) -> Addition:
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


def _step(parts: Sequence[Part[LaneRun]], spans: Spans, lanes: Lanes) -> Addition:
    """Any mix, one token of each row."""
    in_features = parts[0].a.shape[1]
    members = [(slice(low, high), _member(parts, number, lanes)) for number, low, high in spans]
    reads = [(part.run.between, (part.a.shape[0], part.run.width, in_features), part.a) for part in parts]

    def add(x: torch.Tensor, output: torch.Tensor) -> None:
        read, rows = x.view(-1, in_features), output.view(-1, output.shape[-1])
        if lanes.sources is not None:
            read = read.index_select(0, lanes.sources)
        reduced = [torch.bmm(read[between].view(shape), a) for between, shape, a in reads]
        for span, deltas in members:
            own = rows[:, span]
            delta = deltas(reduced, own)
            for place in lanes.places:
                own += delta if place is None else delta.index_select(0, place)

    return add


def _member(
    parts: Sequence[Part[LaneRun]], number: int, lanes: Lanes
) -> Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor]:
    """From what each part's A matrices gave and the base layer's output [rows, out]: what to add, [lanes, out]."""
    factors = [
        (at, part, b, slice(number * part.run.rank, (number + 1) * part.run.rank))
        for at, part in enumerate(parts)
        if (b := part.b[number]) is not None
    ]
    out_features = factors[0][2].shape[2]
    if len(factors) == 1 and factors[0][1].run.between == slice(0, lanes.count) and not lanes.spare:
        ((only, part, own_b, ranks),) = factors
        if part.surplus[number] is None and part.shift[number] is None and lanes.weights is None:
            return lambda reduced, _: torch.bmm(reduced[only][:, :, ranks], own_b).view(-1, out_features)
    covered = sum(part.run.between.stop - part.run.between.start for _, part, _, _ in factors)

    def deltas(reduced: Sequence[torch.Tensor], base: torch.Tensor) -> torch.Tensor:
        whole = lanes.count + lanes.spare
        delta = base.new_empty((whole, out_features)) if covered == whole else base.new_zeros((whole, out_features))
        for at, part, b, ranks in factors:
            own = delta[part.run.between].view(b.shape[0], part.run.width, out_features)
            torch.bmm(reduced[at][:, :, ranks], b, out=own)
            surplus, shift = part.surplus[number], part.shift[number]
            if shift is not None:
                own += shift
            if surplus is not None:
                source = base if lanes.sources is None else base.index_select(0, lanes.sources)
                own.addcmul_(source[part.run.between].reshape(own.shape), surplus)
        if lanes.weights is not None:
            delta[: lanes.count] *= lanes.weights
        return delta

    return deltas
