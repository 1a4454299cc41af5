"""Records that are nearly the same as one that was there before."""

import numpy as np
import numpy.typing as npt

from fleet_kit.text_fingerprints import PERMUTATIONS, band_keys, signatures_of_hashes
from services.trainer.datasets.filters.first_seen import Column, FirstSeen, Keys
from services.trainer.datasets.filters.recipe import NearDuplicates
from services.trainer.datasets.filters.rows import Rows
from services.trainer.datasets.filters.text_forms import hashes_of, joined, word_forms
from services.trainer.datasets.filters.verdict import Verdict, first_reason

Signatures = npt.NDArray[np.uint16]


class DropNearDuplicates:
    """Drops records whose MinHash signature is like an earlier one's (locality-sensitive hashing by bands).

    Of records that share a band only the first kept one is remembered and compared with. So the time is linear
    however many records are made from one template, where a full index compares each with all the others; a pair
    that shares no first record is missed. Memory for each kept record: 136 bytes, and 12 for each of 8 or 16 bands.
    """

    name = "near_duplicates"

    def __init__(self, knobs: NearDuplicates) -> None:
        self._knobs = knobs
        # Chance that a pair at the threshold shares a band: over 0.98 for 8 bands of 8 from 0.9 on, over 0.99 for 16
        # bands of 4 from 0.75 on, and 0.64 at 0.5.
        self._bands = 8 if knobs.threshold >= 0.9 else 16
        self._seen = FirstSeen()
        self._signatures = Column(np.uint16, PERMUTATIONS)
        self._ids = Column(np.uint64)

    def judge(self, rows: Rows) -> Verdict:
        hashes, bounds = hashes_of(word_forms(joined(rows.batch, self._knobs.by)))
        signatures = signatures_of_hashes(hashes, bounds)
        # Two signatures agree in 16 bits by chance once in 65536 places.
        short = signatures.astype(np.uint16)
        keys = band_keys(signatures, self._bands)
        worded = np.diff(bounds.astype(np.int64)) > 0
        like: dict[int, tuple[np.uint64, float]] = {}
        self._like_earlier(keys, short, worded, like)
        kept = self._like_in_batch(rows, keys, short, worded, like)
        self._remember(rows, kept, keys, short)
        found = np.zeros(len(rows), bool)
        found[list(like)] = True
        bound = self._knobs.threshold
        kinds, labels = first_reason(len(rows), [(f"similarity of {bound:g} and above", found)])

        def explain(row: int) -> str:
            prefix, similarity = like[row]
            return f"{self._knobs.by}: similarity {similarity:.2f} to record {prefix:016x}…, below {bound:g} passes"

        return Verdict(kinds, labels, explain)

    def _like_earlier(
        self,
        keys: Keys,
        short: Signatures,
        worded: npt.NDArray[np.bool_],
        like: dict[int, tuple[np.uint64, float]],
    ) -> None:
        found = self._seen.find(keys.reshape(-1)).reshape(keys.shape)
        row, band = np.nonzero((found >= 0) & worded[:, None])
        pairs = np.unique(np.stack((row, found[row, band]), axis=1), axis=0)
        similar = (self._signatures.at(pairs[:, 1]) == short[pairs[:, 0]]).mean(axis=1)
        for at in np.nonzero(similar >= self._knobs.threshold)[0]:
            like.setdefault(int(pairs[at, 0]), (self._ids.at(pairs[at, 1:])[0, 0], float(similar[at])))

    def _like_in_batch(
        self,
        rows: Rows,
        keys: Keys,
        short: Signatures,
        worded: npt.NDArray[np.bool_],
        like: dict[int, tuple[np.uint64, float]],
    ) -> list[int]:
        """Compare with the kept records of this batch, in order; returns those that stay and have words."""
        kept: list[int] = []
        first: dict[int, int] = {}
        for row in np.nonzero(worded)[0].tolist():
            if row in like:
                continue
            of_row = keys[row].tolist()
            for other in sorted({first[key] for key in of_row if key in first}):
                similar = float((short[row] == short[other]).mean())
                if similar >= self._knobs.threshold:
                    like[row] = rows.id_prefixes[other], similar
                    break
            else:
                kept.append(row)
                for key in of_row:
                    first.setdefault(key, row)
        return kept

    def _remember(self, rows: Rows, kept: list[int], keys: Keys, short: Signatures) -> None:
        numbers = len(self._ids) + np.arange(len(kept))
        of_kept, first = np.unique(keys[kept].reshape(-1), return_index=True)
        new = self._seen.find(of_kept) < 0
        self._seen.add(of_kept[new], numbers[first[new] // self._bands])
        self._signatures.extend(short[kept])
        self._ids.extend(rows.id_prefixes[kept][:, None])
