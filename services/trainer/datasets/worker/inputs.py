"""Reads one input of a build as record batches, and counts what it gave."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.trainer.datasets import records
from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.columns import MissingColumn, Row
from services.trainer.datasets.dataset import InvalidSample
from services.trainer.datasets.records import Kind, Record
from services.trainer.datasets.subject_digest import digest_of
from services.trainer.datasets.worker.card import SourceCard, Unusable
from services.trainer.datasets.worker.progress_file import BuildPositionFile
from services.trainer.datasets.worker.rows import Unreadable, read_rows
from services.trainer.datasets.worker.spec import Input, InputFile

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1024
MAX_FAULTS = 20
_TABLES = ("csv", "parquet", "folder")
"""Formats of which every row has the same columns."""


@dataclass(frozen=True)
class People:
    """How people are named in records, and whom none may be about: keyed digests of their names."""

    key: bytes = b""
    forgotten: frozenset[str] = frozenset()

    def digests(self, names: Iterable[str]) -> tuple[str, ...]:
        """Keyed digests of names, in order."""
        return tuple(sorted({digest_of(self.key, name) for name in names}))


class InputReader:
    """One input while it is read, and what it gave."""

    def __init__(self, given: Input, kind: Kind, place: BuildPositionFile, people: People, *, limit: int) -> None:
        self.field = given.field
        self._place = place
        self._limit = limit
        self._given = given
        self._kind = kind
        self._people = people
        self._counted = Counter[str]()
        self._unusable: list[Unusable] = []
        self._faults: list[BuildFault] = []

    def batches(self) -> Iterator["pa.RecordBatch"]:
        """Its records; raises `CannotBuild` for a file or row that the input does not put up with."""
        yield from batches_of(self._records())
        if self._unusable and self._given.unusable == "refuse":
            raise CannotBuild(*self._faults)

    def card(self) -> SourceCard:
        """What it gave; complete once the batches are taken."""
        return SourceCard(
            described=self._given.described,
            rows=self._counted["rows"],
            records=self._counted["records"],
            unusable=self._counted["unusable"],
            forgotten=self._counted["forgotten"],
            examples=tuple(self._unusable),
        )

    def _records(self) -> Iterator[Record]:
        for file in self._given.files:
            self._place.write(self.field, file.name)
            try:
                for number, row in read_rows(file, limit=self._limit):
                    self._counted["rows"] += 1
                    try:
                        record = self._record(row, from_records=file.format == "records")
                    except InvalidSample as error:
                        self._refuse_table(file, error)
                        self._note(f"{file.name} row {number}", error)
                        if len(self._unusable) == MAX_FAULTS and self._given.unusable == "refuse":
                            return
                        continue
                    if not self._people.forgotten.isdisjoint(record.subjects):
                        self._counted["forgotten"] += 1
                        continue
                    self._counted["records"] += 1
                    yield record
            except Unreadable as error:
                value = f"{error.file}: {error.found}"
                raise CannotBuild(BuildFault(field=self.field, value=value, expected=error.expected)) from error

    def _record(self, row: Row | InvalidSample, *, from_records: bool) -> Record:
        if isinstance(row, InvalidSample):
            raise row
        if from_records:
            return Record.of_values(row)
        columns = self._given.columns
        record = columns.record(row, self._kind, self._given.origin)
        names = columns.people(row)
        return replace(record, subjects=self._people.digests(names)) if names else record

    def _refuse_table(self, file: InputFile, error: InvalidSample) -> None:
        """One fault for a table that lacks a column, instead of the same one for each of its rows."""
        if isinstance(error, MissingColumn) and file.format in _TABLES and self._given.unusable == "refuse":
            raise CannotBuild(self._fault(file.name, error)) from error

    def _fault(self, place: str, error: InvalidSample) -> BuildFault:
        value = f"{place}: {error.field}: {error.found}"
        return BuildFault(field=self.field, value=value, expected=error.expected)

    def _note(self, place: str, error: InvalidSample) -> None:
        self._counted["unusable"] += 1
        if len(self._unusable) < MAX_FAULTS:
            self._unusable.append(Unusable(place=place, reason=str(error)))
            self._faults.append(self._fault(place, error))


def batches_of(made: Iterable[Record]) -> Iterator["pa.RecordBatch"]:
    """Records as Arrow batches of 1024, the last one shorter."""
    waiting: list[Record] = []
    for record in made:
        waiting.append(record)
        if len(waiting) == BATCH:
            yield _batch(waiting)
            waiting = []
    if waiting:
        yield _batch(waiting)


def _batch(made: list[Record]) -> "pa.RecordBatch":
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([record.values() for record in made], schema=records.schema())
