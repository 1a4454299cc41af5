"""`Lanes`: the rows of one decode step laid out slot by slot, a fixed number for each slot of a run.

Traffic gives every slot another number of rows. A batched product over all of them needs the same number for each: what
is missing is padding, whose products nobody reads. For one token a lane of padding costs less than the calls of
another product do, for a prompt it does not (cf. the padded and the segmented products of S-LoRA, arXiv:2311.03285).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

Uses = Mapping[int, Sequence[tuple[int, float]]]
"""Of each slot the rows that use it, with their weights."""

_CALLS = 1_750_000
"""What the calls of one more run cost in a layer, in bytes of a slot's matrices that are read in the same time."""
_LANE = 0.22
"""What one more lane costs of what reading its slot's matrices does: its products, and copies of its vectors."""


@dataclass(frozen=True, eq=False)
class LaneRun:
    """Slots `low..high-1`, all of one rank, with `width` lanes each; `first` is the first lane of the first slot."""

    low: int
    high: int
    rank: int
    first: int
    width: int

    @property
    def between(self) -> slice:
        """Its lanes."""
        return slice(self.first, self.first + (self.high - self.low) * self.width)


@dataclass(frozen=True, eq=False)
class Lanes:
    """count: how many. sources: the batch row that each lane reads, [count]; None where lane i is row i.

    places: where each row finds its first use, its second and so on, each [rows]; lane `count`, a lane of zeros, where
    it has no such use; None where the lanes are the rows, one to one. weights: [count, 1], None where all are 1.
    """

    runs: Sequence[LaneRun]
    count: int
    sources: torch.Tensor | None
    places: Sequence[torch.Tensor | None]
    weights: torch.Tensor | None
    spare: bool
    """Does any row find the lane of zeros?"""

    @classmethod
    def of(cls, uses: Uses, rows: int, ranks: Sequence[int], unit: int, like: torch.Tensor) -> Self:
        """rows: of the batch. ranks: of each slot. unit: bytes of a layer's matrices of a slot, for each rank.
        like: has the dtype and the device of the weights."""
        runs = _runs(uses, ranks, unit)
        count = runs[-1].between.stop if runs else 0
        sources, weights = [0] * count, [1.0] * count
        of_row: list[list[int]] = [[] for _ in range(rows)]
        for run in runs:
            for slot in range(run.low, run.high):
                for lane, (row, weight) in enumerate(uses.get(slot, ()), run.first + (slot - run.low) * run.width):
                    sources[lane], weights[lane] = row, weight
                    of_row[row].append(lane)
        levels = max(map(len, of_row), default=0)
        places = [[own[level] if level < len(own) else count for own in of_row] for level in range(levels)]
        same = list(range(rows))
        spare = any(count in place for place in places)
        as_computed = same if count + spare == rows else None
        return cls(
            runs=runs,
            count=count,
            sources=None if sources == same else torch.tensor(sources, device=like.device),
            places=[None if place == as_computed else torch.tensor(place, device=like.device) for place in places],
            weights=None if set(weights) <= {1.0} else like.new_tensor(weights).unsqueeze(1),
            spare=spare,
        )


def _runs(uses: Uses, ranks: Sequence[int], unit: int) -> Sequence[LaneRun]:
    """The cheapest division of the slots into runs; slots that no row uses are part of a run where that is cheaper."""
    slots = sorted(uses)
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first n slots: cost, and where its last run begins
    for last, slot in enumerate(slots):
        width, found = 0, (float("inf"), last)
        for first in range(last, -1, -1):
            if ranks[slots[first]] != ranks[slot]:
                break
            width = max(width, len(uses[slots[first]]))
            cost = _CALLS + (slot + 1 - slots[first]) * ranks[slot] * unit * (1 + _LANE * width)
            found = min(found, (best[first][0] + cost, first))
        best.append(found)
    bounds: list[tuple[int, int]] = []
    end = len(slots)
    while end:
        first = best[end][1]
        bounds.append((first, end))
        end = first
    runs: list[LaneRun] = []
    lane = 0
    for first, end in reversed(bounds):
        width = max(len(uses[slot]) for slot in slots[first:end])
        run = LaneRun(slots[first], slots[end - 1] + 1, ranks[slots[first]], lane, width)
        runs.append(run)
        lane = run.between.stop
    return runs
