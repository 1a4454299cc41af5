"""The order in which samples are trained: random over the epoch, of similar length within a batch."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

_POOL = 16  # batches whose samples are sorted together: large enough for even lengths, small enough to stay random


class LengthGrouped(Sampler[int]):
    """Indices of one epoch, a pure function of (lengths, batch size, seed, epoch).

    That is what lets another worker continue in the middle of an epoch: it computes the same order and skips what
    was done. `transformers.LengthGroupedSampler` draws from the global generator, whose state at the epoch's start
    no checkpoint keeps.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed}/{self._epoch}")  # noqa: S311 - an order, no secret
        indices = list(range(len(self._lengths)))
        chance.shuffle(indices)
        # The short last batch is drawn first, so that it is a random one and never in the middle.
        tail = len(indices) % self._batch_size
        body, rest = indices[: len(indices) - tail], indices[len(indices) - tail :]
        pool = self._batch_size * _POOL
        batches: list[list[int]] = []
        for start in range(0, len(body), pool):
            together = sorted(body[start : start + pool], key=lambda index: (self._lengths[index], index))
            batches += [together[at : at + self._batch_size] for at in range(0, len(together), self._batch_size)]
        chance.shuffle(batches)
        for batch in (*batches, rest):
            yield from batch
