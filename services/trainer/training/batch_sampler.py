"""The batches of an epoch: random, and the same in every process that computes them."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch.utils.data import Sampler


class BatchSampler(Sampler[list[int]]):
    """One process's part of every batch of an epoch, a pure function of (lengths, batch size, seed, epoch).

    That is what lets another worker continue in the middle of an epoch: it computes the same batches and skips what
    was done; samplers that draw from the global generator need its state at the epoch's start, which no checkpoint
    keeps. Samples are not grouped by length: packed batches have no padding to save, and samples of one length are
    alike, which teaches slower (docs/decisions/0006-packed-training.md).

    Batches differ in size by one at most, so that no step depends on a few samples that an even division leaves over.
    `processes` deal a batch out row by row, the longest first and there and back again; together they train what one
    process would, no row twice. (accelerate fills the last batch with rows of the first.) A batch has at least half of
    `batch_size` rows where the epoch has `batch_size`; no process is left without one as long as it has two of a whole
    batch.
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
        for start, end in pairwise(bounds):
            batch = sorted(indices[start:end], key=lambda index: (-self._lengths[index], index))
            own = (self._process, 2 * self._processes - 1 - self._process)
            yield [index for at, index in enumerate(batch) if at % (2 * self._processes) in own]
