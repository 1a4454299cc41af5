"""Rows and positions that come and go in a cache: each row keeps its own numbers, whatever happens to others."""

import math

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from lora_core.kv_cache import GrowingLayer

HEADS, DIM = 2, 3


class Rows:
    """A layer beside what each of its rows should hold: [heads, tokens, dim], zeros where it is padded."""

    def __init__(self, rows: int, tokens: int, first: float) -> None:
        self.layer = GrowingLayer()  # type: ignore[no-untyped-call]
        self.wanted = [torch.empty((HEADS, 0, DIM))] * rows
        self.read(tokens, first)

    @property
    def used(self) -> int:
        return self.wanted[0].shape[1]

    def read(self, tokens: int, first: float) -> None:
        new = torch.arange(len(self.wanted) * HEADS * tokens * DIM) + first
        new = new.view(len(self.wanted), HEADS, tokens, DIM)
        self.layer.update(new, -new)
        self.wanted = [torch.cat([own, more], 1) for own, more in zip(self.wanted, new, strict=True)]

    def join(self, other: "Rows") -> None:
        positions = max(self.used, other.used)
        self.layer.join(other.layer, positions)
        together = [*self.wanted, *other.wanted]
        self.wanted = [torch.nn.functional.pad(own, (0, 0, positions - own.shape[1], 0)) for own in together]

    def drop(self, kept: set[int]) -> None:
        """As a padded batch does it: the last rows that stay go where others leave."""
        places = sorted(kept)
        holes = sorted(set(range(len(kept))) - kept)
        moves = list(zip(places[len(kept) - len(holes) :], holes, strict=True))
        self.layer.drop(moves, len(kept))
        for source, place in moves:
            self.wanted[place] = self.wanted[source]
        self.wanted = self.wanted[: len(kept)]

    def trim(self, positions: int) -> None:
        self.layer.trim(positions)
        self.wanted = [own[:, positions:] for own in self.wanted]

    def check(self) -> None:
        assert self.layer.keys is not None
        assert self.layer.values is not None
        assert torch.equal(self.layer.keys, torch.stack(self.wanted))
        assert torch.equal(self.layer.values, -torch.stack(self.wanted))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_row_keeps_its_numbers_over_any_order_of_reading_joining_leaving_and_trimming(
    data: st.DataObject,
) -> None:
    rows = Rows(data.draw(st.integers(1, 5)), data.draw(st.integers(1, 90)), 1)
    for step in range(data.draw(st.integers(1, 25))):
        first = 1000.0 * (step + 1)
        match data.draw(st.sampled_from(["read", "read", "join", "drop", "trim"])):
            case "read":
                rows.read(data.draw(st.integers(1, 60)), first)
            case "join":
                rows.join(Rows(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 120)), first))
            case "drop":
                rows.drop(data.draw(st.sets(st.integers(0, len(rows.wanted) - 1), min_size=1)))
            case "trim":
                rows.trim(data.draw(st.integers(0, rows.used - 1)))
        rows.check()


def test_numbers_that_are_none_leave_with_their_row() -> None:
    rows = Rows(2, 40, 1)
    rows.layer.update(torch.full((2, HEADS, 1, DIM), math.nan), torch.full((2, HEADS, 1, DIM), math.inf))
    rows.layer.drop([], 1)
    joining = Rows(1, 5, 7)
    rows.layer.join(joining.layer, 41)
    assert rows.layer.keys is not None
    assert rows.layer.values is not None
    assert torch.equal(rows.layer.keys[1, :, :36], torch.zeros(HEADS, 36, DIM)), "where it is padded"
    assert torch.isfinite(rows.layer.values[1]).all()


def test_a_row_that_joins_or_leaves_moves_no_others() -> None:
    rows = Rows(8, 50, 1)
    rows.join(Rows(1, 50, 5000))  # has room for more from here on
    where = rows.layer.keys[0].data_ptr()  # type: ignore[index]
    for step in range(10):
        rows.drop(set(range(9)) - {step % 8 + 1})
        rows.join(Rows(1, 20, 9000))
        rows.check()
        assert rows.layer.keys is not None
        assert rows.layer.keys[0].data_ptr() == where
