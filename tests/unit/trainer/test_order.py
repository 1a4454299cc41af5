"""Batches in an order that another worker can compute again."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.trainer.training.batch_sampler import BatchSampler

pytestmark = pytest.mark.unit
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 16), st.integers(0, 9), st.integers(0, 9))
def test_every_sample_comes_once_in_batches_that_seed_and_epoch_decide(
    lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = BatchSampler(lengths, batch, seed)
        batches.set_epoch(epoch)
        return list(batches)

    whole = order(seed, epoch)
    assert sorted(index for each in whole for index in each) == list(range(len(lengths)))
    assert len(whole) == len(BatchSampler(lengths, batch, seed)) == -(-len(lengths) // batch)
    assert whole == order(seed, epoch)


@given(LENGTHS, st.integers(1, 16))
def test_batches_differ_by_one_sample_at_most(lengths: list[int], batch: int) -> None:
    sizes = {len(each) for each in BatchSampler(lengths, batch, 0)}
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


@given(LENGTHS, st.integers(2, 4), st.integers(2, 6))
def test_processes_share_the_batches_of_one_and_none_is_without_a_sample(
    lengths: list[int], processes: int, each: int
) -> None:
    assume(len(lengths) >= processes)
    batch = processes * each
    parts = [list(BatchSampler(lengths, batch, 0, process=at, processes=processes)) for at in range(processes)]
    for whole, *shares in zip(BatchSampler(lengths, batch, 0), *parts, strict=True):
        assert sorted(index for share in shares for index in share) == sorted(whole)
        assert all(shares)


def test_epochs_and_seeds_give_different_batches() -> None:
    lengths = [index % 17 for index in range(64)]
    first, second, other = BatchSampler(lengths, 4, 0), BatchSampler(lengths, 4, 0), BatchSampler(lengths, 4, 1)
    second.set_epoch(1)
    assert list(first) != list(second)
    assert list(first) != list(other)


def test_processes_get_like_amounts_of_work() -> None:
    lengths = [20 + (index * 7919) % 200 for index in range(512)]
    parts = [list(BatchSampler(lengths, 8, 0, process=at, processes=2)) for at in range(2)]
    work = [sum(lengths[index] for batch in part for index in batch) for part in parts]
    assert max(work) < 1.2 * min(work)
