"""Batches of similar length, in an order that another worker can compute again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.training.order import LengthGrouped

pytestmark = pytest.mark.unit


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 16), st.integers(0, 9), st.integers(0, 9)
)
def test_every_sample_comes_once_in_an_order_that_seed_and_epoch_decide(
    lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthGrouped(lengths, batch, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(seed, epoch)) == list(range(len(lengths)))
    assert order(seed, epoch) == order(seed, epoch)


def test_epochs_and_seeds_give_different_orders() -> None:
    lengths = [index % 17 for index in range(64)]
    first, second, other = LengthGrouped(lengths, 4, 0), LengthGrouped(lengths, 4, 0), LengthGrouped(lengths, 4, 1)
    second.set_epoch(1)
    assert list(first) != list(second)
    assert list(first) != list(other)


def test_padding_is_a_fraction_of_that_of_a_random_order() -> None:
    lengths = [20 + (index * 7919) % 200 for index in range(512)]

    def padding(order: list[int]) -> int:
        batches = [[lengths[i] for i in order[at : at + 8]] for at in range(0, len(order), 8)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    assert padding(list(LengthGrouped(lengths, 8, 0))) < 0.2 * padding(list(range(512)))
