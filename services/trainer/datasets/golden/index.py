"""Prints of golden prompts, compared with the records to train on."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BANDS = 16
THRESHOLD = 0.8
"""Estimated Jaccard similarity from which on prompts count as the same, unless a recipe sets another."""


@dataclass(frozen=True)
class GoldenPrint:
    """One golden prompt: data set, digest of the exact form, and MinHash signature (`fleet_kit.text_fingerprints`).

    A signature of another scheme than this trainer's cannot be compared: then only equal prompts are found.
    """

    reference: str
    """The data set as `id@version`."""
    digest: bytes
    signature: bytes
    """32-bit values, little endian."""
    scheme: str


@dataclass(frozen=True)
class Overlap:
    """A text that is in golden data sets, or like a text of one."""

    references: tuple[str, ...]
    similarity: float
    """1 for equal texts, else the estimated Jaccard similarity."""


@dataclass(frozen=True)
class GoldenIndex:
    """All golden prompts that the trainer knows, of every domain. About 0.8 kB of memory each."""

    prints: tuple[GoldenPrint, ...] = ()

    @cached_property
    def references(self) -> tuple[str, ...]:
        """The data sets that are held against the records."""
        return tuple(sorted({one.reference for one in self.prints}))

    def dump(self, path: Path) -> None:
        """Write it for a subprocess, which has no database."""
        with path.open("w") as file:
            for one in self.prints:
                file.write(json.dumps([one.reference, one.digest.hex(), one.signature.hex(), one.scheme]) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `dump` wrote."""
        with path.open() as file:
            read = [json.loads(line) for line in file]
        return cls(
            tuple(
                GoldenPrint(reference, bytes.fromhex(digest), bytes.fromhex(signature), scheme)
                for reference, digest, signature, scheme in read
            )
        )

    def overlaps(self, texts: Sequence[str], threshold: float = THRESHOLD) -> Iterator[Overlap | None]:
        """For each text the golden data sets that it overlaps, or None."""
        if not self.prints:
            yield from (None for _ in texts)
            return
        from fleet_kit.text_fingerprints import digest, signatures

        found = signatures(texts)
        for text, signature, alike in zip(texts, found, self.alike(found), strict=True):
            yield self.overlap(digest(text), signature if alike else None, threshold)

    def overlap(self, digest: bytes, signature: "npt.NDArray[np.uint32] | None", threshold: float) -> Overlap | None:
        """What a text with this digest, and this signature if there is one, overlaps."""
        if equal := self.equal.get(digest):
            return Overlap(equal, 1.0)
        rows, known = self._signatures
        if signature is None or not rows or not _worded(signature):
            return None
        near = self._sharing(signature)
        similar = (known[near] == signature).mean(axis=1)
        found = similar >= threshold
        if not found.any():
            return None
        references = {self.prints[rows[at]].reference for at in near[found]}
        return Overlap(tuple(sorted(references)), float(similar[found].max()))

    @cached_property
    def equal(self) -> dict[bytes, tuple[str, ...]]:
        """Digest → data sets that hold it."""
        known: dict[bytes, set[str]] = {}
        for one in self.prints:
            known.setdefault(one.digest, set()).add(one.reference)
        return {digest: tuple(sorted(references)) for digest, references in known.items()}

    def alike(self, signatures: "npt.NDArray[np.uint32]") -> "npt.NDArray[np.bool_]":
        """Which of these signatures share a band with a golden one: only they need to be compared with all.

        A pair that is 0.8 alike shares one of the 16 bands with a probability of 0.9998, one that is 0.6 alike
        with 0.89.
        """
        import numpy as np

        from fleet_kit.text_fingerprints import band_keys

        known, _ = self._bands
        keys = band_keys(signatures, _BANDS).reshape(-1)
        at = np.searchsorted(known, keys)
        found = np.append(known, np.uint64(0))[at] == keys
        return np.asarray(found.reshape(len(signatures), _BANDS).any(axis=1))

    def _sharing(self, signature: "npt.NDArray[np.uint32]") -> "npt.NDArray[np.int64]":
        """Places of the golden signatures that share a band with this one, ascending."""
        import numpy as np

        from fleet_kit.text_fingerprints import band_keys

        known, places = self._bands
        keys = band_keys(signature[None], _BANDS)[0]
        ranges = zip(np.searchsorted(known, keys), np.searchsorted(known, keys, side="right"), strict=True)
        return np.unique(np.concatenate([places[low:high] for low, high in ranges]))

    @cached_property
    def _bands(self) -> "tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]":
        """The keys of all bands in order, and for each the place of its signature."""
        import numpy as np

        from fleet_kit.text_fingerprints import band_keys

        keys = band_keys(self._signatures[1], _BANDS).reshape(-1)
        order = np.argsort(keys, kind="stable")
        return keys[order], order // _BANDS

    @cached_property
    def _signatures(self) -> "tuple[list[int], npt.NDArray[np.uint32]]":
        import numpy as np

        from fleet_kit.text_fingerprints import PERMUTATIONS, SCHEME

        size = 4 * PERMUTATIONS
        rows = [row for row, one in enumerate(self.prints) if one.scheme == SCHEME and len(one.signature) == size]
        joined = b"".join(self.prints[row].signature for row in rows)
        return rows, np.frombuffer(joined, "<u4").reshape(-1, PERMUTATIONS)


def _worded(signature: "npt.NDArray[np.uint32]") -> bool:
    """Whether the text had a word: nothing is like nothing, which is no reason to drop anything."""
    return bool((signature != signature[0]).any())
