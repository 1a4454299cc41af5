"""How the rows of a decode step are laid out by slot: every use is computed once, and read by its own row alone."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core.slots.lanes import Lanes

SLOTS = 12
MEBIBYTE = 1 << 20
LIKE = torch.empty(0)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[dict[int, float]], list[int]]:
    """For each row its slots and weights; the rank of each slot."""
    slots = st.dictionaries(st.integers(0, SLOTS - 1), st.sampled_from([1.0, 0.5, -2.0]), max_size=3)
    rows = draw(st.lists(slots, min_size=1, max_size=20))
    return rows, draw(st.lists(st.sampled_from([4, 8]), min_size=SLOTS, max_size=SLOTS))


def lanes_of(rows: Sequence[Mapping[int, float]], ranks: Sequence[int], unit: int) -> Lanes:
    uses: dict[int, list[tuple[int, float]]] = {}
    for row, choice in enumerate(rows):
        for slot, weight in choice.items():
            uses.setdefault(slot, []).append((row, weight))
    return Lanes.of(uses, len(rows), ranks, unit, LIKE)


@pytest.mark.requirement("LI-3.4", "LI-8.1")
@settings(deadline=None, max_examples=200)
@given(batches(), st.sampled_from([1, MEBIBYTE // 100, MEBIBYTE]))
def test_each_row_finds_what_its_slots_give_for_its_own_input_by_weight(
    batch: tuple[list[dict[int, float]], list[int]], unit: int
) -> None:
    rows, ranks = batch
    lanes = lanes_of(rows, ranks, unit)
    read = torch.arange(len(rows)) if lanes.sources is None else lanes.sources
    computed = torch.zeros(lanes.count + 1, SLOTS)
    for run in lanes.runs:
        assert {ranks[slot] for slot in (run.low, run.high - 1)} == {run.rank}
        for slot in range(run.low, run.high):
            first = run.first + (slot - run.low) * run.width
            computed[first : first + run.width, slot] = read[first : first + run.width] + 1.0
    if lanes.weights is not None:
        computed[: lanes.count] *= lanes.weights
    whole = torch.arange(lanes.count + lanes.spare)
    places = [whole if place is None else place for place in lanes.places]
    assert {len(place) for place in places} <= {len(rows)}
    found = sum((computed[place] for place in places), torch.zeros(len(rows), SLOTS))
    expected = [[(row + 1) * choice.get(slot, 0) for slot in range(SLOTS)] for row, choice in enumerate(rows)]
    assert found.tolist() == expected
    assert lanes.spare == any(lanes.count in place.tolist() for place in places)


@pytest.mark.parametrize(
    ("unit", "runs"),
    [
        (1, [(0, 12, 3)]),  # matrices so small that the calls alone count
        (MEBIBYTE, [(0, 1, 3), (1, 2, 1), (11, 12, 2)]),  # so large that nothing is read in vain
    ],
)
def test_slots_share_a_product_where_padding_costs_less_than_its_calls(
    unit: int, runs: list[tuple[int, int, int]]
) -> None:
    lanes = lanes_of([{0: 1.0}, {0: 1.0}, {0: 1.0}, {1: 1.0}, {11: 1.0}, {11: 1.0}], [8] * SLOTS, unit)
    assert [(run.low, run.high, run.width) for run in lanes.runs] == runs


def test_rows_that_lie_in_the_order_of_their_slots_are_not_copied() -> None:
    lanes = lanes_of([{2: 1.0}, {2: 1.0}, {3: 1.0}, {3: 1.0}], [8] * SLOTS, 1)
    assert lanes.sources is None
    assert list(lanes.places) == [None]
    assert lanes.weights is None
    assert not lanes.spare
