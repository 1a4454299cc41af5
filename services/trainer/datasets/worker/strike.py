"""Copies an uploaded file without the rows about some people: `… -m services.trainer.datasets.worker.strike SPEC`.

SPEC is a file with the JSON of `StrikeSpec`. Prints `Struck` as one line of JSON. A process of its own, because reading
Parquet takes a library of 100 MB that the service shall not load. Without a row to strike it writes no copy.
"""

import csv
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from services.trainer.datasets.columns import Columns
from services.trainer.datasets.dataset import Format, InvalidSample
from services.trainer.datasets.subject_digest import digest_of
from services.trainer.datasets.worker.parquet import MAX_ROW_BYTES
from services.trainer.datasets.worker.rows import Unreadable, read_rows
from services.trainer.datasets.worker.spec import InputFile


class StrikeSpec(BaseModel):
    """A file, and whose rows are to go: keyed digests, and the columns that may name people."""

    model_config = ConfigDict(frozen=True)

    path: Path
    format: Format
    copy_to: Path
    columns: tuple[str, ...]
    key: str
    """What the digests are keyed with, as hexadecimal digits; no other user may read the file."""
    subjects: frozenset[str]
    limit: int
    """Bytes that all rows of the file may hold together."""


class Struck(BaseModel):
    """How many rows each person had, by digest. `unreadable`: why the file could not be searched to its end."""

    rows: dict[str, int] = {}
    unreadable: str = ""


def strike(spec: StrikeSpec) -> Struck:
    """Write the copy. A file that cannot be read as a whole is left as it is: no recipe can use it either."""
    found, numbers = Counter[str](), set[int]()
    key, columns = bytes.fromhex(spec.key), [Columns(subject=name) for name in spec.columns]
    file = InputFile(path=spec.path, format=spec.format, name="upload")
    try:
        for number, row in read_rows(file, limit=spec.limit):
            named = {digest_of(key, name) for one in columns for name in _people(one, row)} & spec.subjects
            found.update(named)
            if named:
                numbers.add(number)
    except Unreadable as error:
        return Struck(unreadable=str(error)[:500])
    if numbers:
        _COPIES[spec.format](spec.path, spec.copy_to, numbers)
    return Struck(rows=dict(found))


def _people(columns: Columns, row: object) -> tuple[str, ...]:
    if not isinstance(row, dict):
        return ()
    try:
        return columns.people(row)
    except InvalidSample:
        return ()


def _copy_lines(path: Path, to: Path, without: Collection[int]) -> None:
    with path.open("rb") as lines, to.open("wb") as kept:
        kept.writelines(line for number, line in enumerate(lines, 1) if number not in without)


def _copy_csv(path: Path, to: Path, without: Collection[int]) -> None:
    csv.field_size_limit(MAX_ROW_BYTES)
    with (
        path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines,
        to.open("w", encoding="utf-8", errors="surrogateescape", newline="") as kept,
    ):
        # Blank rows are none, as where their numbers come from.
        rows = (row for row in csv.reader(lines, strict=True) if row)
        csv.writer(kept).writerows(row for number, row in enumerate(rows) if number not in without)


def _copy_parquet(path: Path, to: Path, without: Collection[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as opened, pq.ParquetWriter(to, opened.schema_arrow) as writer:
        for batch in opened.iter_batches(batch_size=1024):
            kept = [number + at + 1 not in without for at in range(batch.num_rows)]
            number += batch.num_rows
            writer.write_batch(batch.filter(pa.array(kept)))


_COPIES = {"jsonl": _copy_lines, "csv": _copy_csv, "parquet": _copy_parquet}


if __name__ == "__main__":
    sys.stdout.write(strike(StrikeSpec.model_validate_json(Path(sys.argv[1]).read_bytes())).model_dump_json() + "\n")
