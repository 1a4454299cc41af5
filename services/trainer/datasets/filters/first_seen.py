"""Which row had a key first, for millions of keys in little memory."""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


class FirstSeen:
    """Keys of 64 bits and for each the number of the row that had it first: 12 bytes a key, in sorted runs.

    Runs of like size are merged, so that there are only logarithmically many of them to search. A Python set of the
    same keys takes about 90 bytes each.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, npt.NDArray[np.uint32]]] = []

    def find(self, keys: Keys) -> Places:
        """The row of each key; -1 for one that was not added."""
        # Neighbouring keys are looked for one after the other, in memory that is in the cache then.
        order = np.argsort(keys)
        ordered = keys[order]
        found = np.full(len(keys), -1, np.int64)
        for known, rows in self._runs:
            at = np.minimum(np.searchsorted(known, ordered), len(known) - 1)
            hit = known[at] == ordered
            found[order[hit]] = rows[at[hit]]
        return found

    def add(self, keys: Keys, rows: Places) -> None:
        """Add keys that are not there, each once."""
        if not len(keys):
            return
        order = np.argsort(keys)
        self._runs.append((keys[order], rows[order].astype(np.uint32)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (left, of_left), (right, of_right) = self._runs[-2:]
            merged = np.concatenate((left, right))
            order = np.argsort(merged, kind="stable")  # linear in what is two sorted halves
            self._runs[-2:] = [(merged[order], np.concatenate((of_left, of_right))[order])]


class Column:
    """A column that grows at its end: `width` numbers of one type a row."""

    def __init__(self, dtype: npt.DTypeLike, width: int = 1) -> None:
        self._values = np.empty((1024, width), dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, values: npt.NDArray[np.generic]) -> None:
        """Add rows, (rows, width)."""
        length = self._length + len(values)
        if length > len(self._values):
            grown = np.empty((max(length, len(self._values) * 3 // 2), self._values.shape[1]), self._values.dtype)
            grown[: self._length] = self._values[: self._length]
            self._values = grown
        self._values[self._length : length] = values
        self._length = length

    def at(self, rows: Places) -> npt.NDArray[np.uint64]:
        """Rows by their numbers, (rows, width)."""
        return self._values[rows]
