"""`SlotMemory`: the matrices of all slots, and what of it is resident."""

import ctypes
import math
import mmap
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch


class SlotMemory:
    """Memory for the matrices of all slots, [slots, max_rank · unit]; a slot of rank r uses the first r · unit.

    unit: how many numbers all matrices have for each rank. Everything of one adapter lies together and is dense at any
    rank: filling a slot is a few long copies, and what is not used is never resident.
    """

    def __init__(self, slots: int, max_rank: int, like: torch.Tensor) -> None:
        self.unit = 0
        self._slots, self._max_rank, self._like = slots, max_rank, like
        self._numbers: torch.Tensor | None = None
        self._dirty = [0] * slots  # up to which number a slot may hold others than 0
        self._resident = [0] * slots  # up to which number its memory may be resident

    def reserve(self, units: int) -> int:
        """A place of so many numbers for each rank; where it begins, in the same measure."""
        self.unit += units
        return self.unit - units

    def prepare(self, slot: int, rank: int, filled: int) -> None:
        """Make room for an adapter that will fill so many numbers of a slot; all the others are 0."""
        size = rank * self.unit
        if filled < size and self._dirty[slot]:
            self.numbers[slot, : max(size, self._dirty[slot])].zero_()
            self._dirty[slot] = 0
        if filled:
            self._dirty[slot] = max(size, self._dirty[slot])
            self._resident[slot] = max(size, self._resident[slot])

    def exchange(self, slot: int, rank: int, other: int, other_rank: int) -> None:
        """Exchange the numbers of two slots that hold adapters of these ranks; rank 0 is an empty slot."""
        used = [own * self.unit for place, own in ((slot, rank), (other, other_rank)) if self._dirty[place]]
        size = max(used, default=0)
        if not size:
            return
        numbers = self.numbers
        for first in range(0, size, _CHUNK):
            part = slice(first, min(size, first + _CHUNK))
            kept = numbers[other, part].clone() if other_rank else None
            numbers[other, part] = numbers[slot, part]
            if kept is not None:
                numbers[slot, part] = kept
        for place in (slot, other):
            self._dirty[place] = max(self._dirty[place], size)
            self._resident[place] = max(self._resident[place], size)

    def fetch_ahead(self, slot: int, rank: int) -> threading.Thread | None:
        """Have the system provide the memory that an adapter of this rank would take in a slot, in the background.

        The first touch of a page costs more than the copy into it, on virtual machines ten times as much. The slot's
        numbers are not changed, so that no request waits for this.
        """
        size = rank * self.unit
        if self._numbers is None or self._numbers.device.type != "cpu" or self._resident[slot] >= size:
            return None
        numbers = self._numbers[slot, :size]
        self._resident[slot] = size
        thread = threading.Thread(target=_populate, args=(numbers,), name="slot-memory", daemon=True)
        thread.start()
        return thread

    @property
    def resident(self) -> int:
        """How many numbers take memory, whether or not an adapter uses them."""
        return sum(self._resident)

    def release(self, slot: int, rank: int = 0) -> None:
        """Give the memory beyond this rank back to the system, where it takes it; those numbers are then 0."""
        kept = rank * self.unit
        if self._numbers is None or self._numbers.device.type != "cpu" or self._resident[slot] <= kept:
            return
        numbers = self._numbers[slot, kept:]
        if inside := _discard(numbers):
            # Pages at its ends are shared with its neighbours.
            numbers[: inside.start].zero_()
            numbers[inside.stop :].zero_()
            self._dirty[slot] = min(self._dirty[slot], kept)
            self._resident[slot] = kept

    def view(self, slot: int, shape: tuple[int, int, int], strides: tuple[int, int], start: int) -> torch.Tensor:
        """Matrices of this shape at number `start` of each of the slots from `slot` on; one call, as there are many."""
        numbers, row = self.numbers, self._max_rank * self.unit
        return torch.as_strided(numbers, shape, (row, *strides), slot * row + start)

    @property
    def numbers(self) -> torch.Tensor:
        """[slots, max_rank · unit], made when an adapter first needs it."""
        if self._numbers is None:
            self._numbers = zeros((self._slots, self._max_rank * self.unit), self._like)
        return self._numbers


_CHUNK = 65_536
"""Numbers that are exchanged at once: the copy of them stays in the processor's cache."""
_MADV_POPULATE_WRITE = 23  # Linux 5.14
_MAP_NORESERVE = 0x4000  # on x86 and ARM; Python 3.11 does not name it


def _populate(numbers: torch.Tensor) -> None:
    start = -(-numbers.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = numbers.data_ptr() + numbers.nbytes - start
    with suppress(AttributeError, OSError):  # on another system pages come as they are touched
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        madvise(start, max(length, 0), _MADV_POPULATE_WRITE)


def _discard(numbers: torch.Tensor) -> slice | None:
    """Free the whole pages of these numbers; which numbers are 0 by that. Only Linux promises zeros."""
    begin, end = numbers.data_ptr(), numbers.data_ptr() + numbers.nbytes
    first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if sys.platform != "linux" or last <= first:
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if madvise(first, last - first, mmap.MADV_DONTNEED) != 0:
        return None
    return slice((first - begin) // numbers.itemsize, (last - begin) // numbers.itemsize)


def resident_when_written(device: torch.device) -> bool:
    """Does memory of `zeros` take nothing before it is written, however much it is? On Linux, unless it is set to
    count what was promised (vm.overcommit_memory 2)."""
    if device.type != "cpu" or sys.platform != "linux":
        return False
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2"
    except OSError:
        return False


def zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros whose memory is not resident until it is written, where the system can do that."""
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    if not size or not resident_when_written(like.device):
        return torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype).view(shape)  # calloc
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    mapped = mmap.mmap(-1, size, flags=flags)
    with suppress(OSError):  # a system without huge pages
        mapped.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(mapped, dtype=like.dtype).view(shape)
