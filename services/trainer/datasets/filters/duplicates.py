"""Records whose text was there before."""

import numpy as np
import polars as pl
from xxhash import xxh3_128_digest

from services.trainer.datasets.filters.first_seen import Column, FirstSeen
from services.trainer.datasets.filters.recipe import ExactDuplicates
from services.trainer.datasets.filters.rows import Rows
from services.trainer.datasets.filters.text_forms import exact_forms, joined
from services.trainer.datasets.filters.verdict import Verdict, first_reason


class Duplicates:
    """Drops all but the first of equal records, by digests of 128 bits: 28 bytes are kept for each kept record.

    Two different records that fall on one digest are beyond anything that happens (10^-21 for a billion records).
    """

    name = "exact_duplicates"

    def __init__(self, knobs: ExactDuplicates) -> None:
        self._knobs = knobs
        self._seen = FirstSeen()
        self._kept = Column(np.uint64, 2)
        """Of each kept record the second half of its digest, and the first 64 bits of its id."""

    def judge(self, rows: Rows) -> Verdict:
        forms = exact_forms(joined(rows.batch, self._knobs.by)).cast(pl.Binary).to_list()
        digests = np.frombuffer(b"".join(map(xxh3_128_digest, forms)), np.uint64).reshape(-1, 2)
        keys, rest = digests[:, 0].copy(), digests[:, 1]
        before = self._seen.find(keys)
        known = self._kept.at(before)
        earlier = (before >= 0) & (known[:, 0] == rest)
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        first_here = first[group]
        here = ~earlier & (first_here != np.arange(len(rows))) & (rest[first_here] == rest)
        fresh = np.nonzero(~earlier & ~here)[0]
        new = fresh[(before[fresh] < 0) & (first_here[fresh] == fresh)]
        self._seen.add(keys[new], len(self._kept) + np.arange(len(new)))
        self._kept.extend(np.stack((rest[new], rows.id_prefixes[new]), axis=1))
        kinds, labels = first_reason(len(rows), [(f"equal {self._knobs.by}", earlier | here)])

        def explain(row: int) -> str:
            prefix = known[row, 1] if earlier[row] else rows.id_prefixes[first_here[row]]
            return f"{self._knobs.by}: equal to that of record {prefix:016x}…, each passes once"

        return Verdict(kinds, labels, explain)
