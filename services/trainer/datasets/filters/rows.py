"""A batch of records as columns of texts: what filters look at."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """Texts of many records in one column; a record has any number of them."""

    name: str
    """What they are called in a reason: prompt or completion."""
    values: pl.Series
    rows: Indices
    """For each text, its record's place in the batch; ascending."""
    count: int
    """Records of the batch."""

    def any(self, found: Mask) -> Mask:
        """Records of which at least one text was found."""
        marked = np.zeros(self.count, bool)
        marked[self.rows[found]] = True
        return marked

    def of(self, row: int) -> list[str]:
        """The texts of one record."""
        low, high = np.searchsorted(self.rows, [row, row + 1])
        return [str(text) for text in self.values[int(low) : int(high)]]


@dataclass(frozen=True)
class Rows:
    """Records of one batch of `records.schema()`."""

    batch: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    @cached_property
    def prompts(self) -> Texts:
        """Every message of the prompt: system, user and earlier answers."""
        return self._texts("prompt", self.batch.column("prompt"), "content")

    @cached_property
    def last_question(self) -> Texts:
        """The last user message of each record, blank where there is none: what languages and lengths are judged by."""
        role = self._texts("prompt", self.batch.column("prompt"), "role").values
        users = np.nonzero((role == "user").to_numpy())[0]
        last = np.full(len(self), -1, np.int64)
        # Ascending, so that the last assignment of a row is its last user message.
        np.maximum.at(last, self.prompts.rows[users], users)
        values = self.prompts.values.gather(pl.Series(last).replace(-1, None)).fill_null("")
        return Texts("prompt", values, np.arange(len(self)), len(self))

    @cached_property
    def questions(self) -> Texts:
        """Every user message."""
        role = self._texts("prompt", self.batch.column("prompt"), "role").values
        users = np.nonzero((role == "user").to_numpy())[0]
        return Texts("prompt", self.prompts.values.gather(users), self.prompts.rows[users], len(self))

    @cached_property
    def completions(self) -> Texts:
        """Every completion."""
        return self._texts("completion", self.batch.column("completions"), None)

    def texts(self, which: str) -> tuple[Texts, ...]:
        """Those that a filter with `text: which` looks at."""
        return {"prompt": (self.prompts,), "completion": (self.completions,), "any": (self.prompts, self.completions)}[
            which
        ]

    def kept(self, keep: Mask) -> Self:
        """The records of a mask, in their order."""
        return self if keep.all() else type(self)(self.batch.filter(pa.array(keep)))

    def record_id(self, row: int) -> str:
        """Id of one record."""
        return str(self.batch.column("id")[row].as_py())

    @cached_property
    def id_prefixes(self) -> npt.NDArray[np.uint64]:
        """The first 64 bits of each record's id."""
        return pl.Series(self.batch.column("id")).str.head(16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()

    def _texts(self, name: str, column: pa.ListArray, field: str | None) -> Texts:
        values = column.flatten()
        if field is not None:
            values = values.field(field)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        return Texts(name, pl.Series(values), np.repeat(np.arange(len(self)), lengths), len(self))
