"""The batches of an epoch: random, of similar length within, and the same whoever computes them."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch.utils.data import Sampler

_POOL = 16  # batches whose samples are sorted together: large enough for even lengths, small enough to stay random


class Batches(Sampler[list[int]]):
    """One process's part of every batch of an epoch, a pure function of (lengths, batch size, seed, epoch).

    That is what lets another worker continue in the middle of an epoch: it computes the same batches and skips what
    was done. `transformers.LengthGroupedSampler` draws from the global generator, whose state at the epoch's start
    no checkpoint keeps.

    Batches differ in size by one at most, so that no step stands on a few samples that an even division leaves over.
    `processes` deal a batch out row by row; together they train what one process would, no row twice. (accelerate
    fills the last batch with rows of the first.) A batch has at least half of `batch_size` rows where the epoch has
    `batch_size`; no process is left without one as long as it has two of a whole batch.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, *, process: int = 0, processes: int = 1
    ) -> None:
        self._lengths = list(lengths)
        self._count = math.ceil(len(self._lengths) / batch_size)
        self._seed = seed
        self._process, self._processes = process, processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which pass over the data the next iteration is."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        chance = random.Random(f"{self._seed}/{self._epoch}")  # noqa: S311 - an order, no secret
        indices = list(range(len(self._lengths)))
        chance.shuffle(indices)
        bounds = [len(indices) * at // self._count for at in range(self._count + 1)]
        batches: list[list[int]] = []
        for first in range(0, self._count, _POOL):
            inner = bounds[first : first + _POOL + 1]
            together = sorted(indices[inner[0] : inner[-1]], key=lambda index: (self._lengths[index], index))
            cuts = [bound - inner[0] for bound in inner]
            batches += [together[start:end] for start, end in pairwise(cuts)]
        chance.shuffle(batches)
        for batch in batches:
            yield batch[self._process :: self._processes]
