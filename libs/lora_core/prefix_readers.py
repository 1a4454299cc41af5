"""`PrefixReaders`: rows that read prompts, and rows that wait for a beginning which one of those is reading."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from lora_core.prefix_cache import BLOCK, Owner, PrefixCache

_WORTH_WAITING = 2  # blocks


@dataclass(frozen=True, slots=True)
class Prompt:
    """Of one row: whose it is, and its tokens."""

    owner: Owner
    ids: Sequence[int]


@dataclass(slots=True)
class PrefixReaders:
    """Of one batch."""

    cache: PrefixCache
    reading: dict[int, Prompt] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    """Row → the row that reads what both begin with."""

    def admit(self, row: int, prompt: Prompt) -> list[torch.Tensor] | None:
        """The blocks that the row need not read; None: it waits until another row has read more of them.

        A row whose prompt is another's does not wait: what reads both reads it once.
        """
        held = self.cache.held(prompt.owner, prompt.ids)
        for other, read in self.reading.items():
            if read.owner != prompt.owner or list(read.ids) == list(prompt.ids):
                continue
            if _shared(read.ids, prompt.ids) - held >= _WORTH_WAITING:
                self.waiting[row] = other
                return None
        self.reading[row] = prompt
        return self.cache.find(prompt.owner, prompt.ids)

    def keep(self, rows: Sequence[int], numbers: Callable[[int, int], torch.Tensor]) -> None:
        """These rows have read their prompts. numbers: of a row's first tokens, so many, see `PrefixCache.keep`."""
        for row in rows if self.reading else ():
            if (prompt := self.reading.get(row)) is None:
                continue
            del self.reading[row]
            with suppress(RuntimeError):  # for want of memory: the row itself has what it needs
                whole = numbers(row, (len(prompt.ids) - 1) // BLOCK * BLOCK)
                self.cache.keep(prompt.owner, prompt.ids, whole)

    def ended(self, row: int) -> None:
        """It reads or waits no more."""
        self.reading.pop(row, None)
        self.waiting.pop(row, None)

    def due(self) -> list[int]:
        """Rows that wait for nobody any more; they are to be admitted again."""
        found = [row for row, other in self.waiting.items() if other not in self.reading]
        for row in found:
            del self.waiting[row]
        return found


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Whole blocks that both begin with, less the last token of either."""
    most = (min(len(one), len(other)) - 1) // BLOCK
    return next(
        (n for n in range(most) if one[n * BLOCK : (n + 1) * BLOCK] != other[n * BLOCK : (n + 1) * BLOCK]), most
    )
