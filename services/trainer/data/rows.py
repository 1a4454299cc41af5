"""Rows of files, whatever their format, one at a time."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from services.trainer.data.build_spec import InputFile
from services.trainer.data.columns import Row
from services.trainer.data.dataset import Format

_BATCH = 1024
_ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class Unreadable(Exception):
    """A file is not what its format says."""

    def __init__(self, file: InputFile, place: str, found: str, expected: str) -> None:
        super().__init__(f"{file.name} {place}: {found}, expected {expected}")
        self.file = f"{file.name} {place}".strip()
        self.found = found
        self.expected = expected


def read_rows(file: InputFile) -> Iterator[tuple[int, Row]]:
    """Numbered rows of a file, from 1; raises `Unreadable`."""
    match file.format:
        case "jsonl" | "records":
            yield from _json_lines(file)
        case "csv":
            yield from _csv(file)
        case "parquet":
            yield from _parquet(file)
        case "folder":
            yield from _folder(file)


def _json_lines(file: InputFile) -> Iterator[tuple[int, Row]]:
    with file.path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise Unreadable(file, f"line {number}", _start(line), "one JSON object a line") from error
            if not isinstance(row, dict):
                raise Unreadable(file, f"line {number}", _start(line), "a JSON object")
            yield number, row


def _csv(file: InputFile) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    # With a mark of byte order or without: spreadsheets write one.
    with file.path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    expected = f"as many values as the {len(reader.fieldnames or ())} columns of the first line"
                    raise Unreadable(file, f"row {number}", f"{len(row)} values or more", expected)
                yield number, row
        except UnicodeDecodeError as error:
            raise Unreadable(file, f"byte {error.start}", error.reason, "UTF-8") from error
        except csv.Error as error:
            raise Unreadable(file, f"line {reader.line_num}", str(error), "CSV with a first line of names") from error


def _parquet(file: InputFile) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as opened:
            yield from _numbered(batch.to_pylist() for batch in opened.iter_batches(batch_size=_BATCH))
    except pa.ArrowInvalid as error:
        raise Unreadable(file, "", str(error), "a Parquet file") from error


def _folder(file: InputFile) -> Iterator[tuple[int, Row]]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(file.path))
    except (FileNotFoundError, ValueError) as error:
        raise Unreadable(file, "", str(error), "a folder that datasets' save_to_disk wrote") from error
    parts = [loaded[name] for name in sorted(loaded)] if isinstance(loaded, DatasetDict) else [loaded]

    def batches() -> Iterator[list[dict[str, Any]]]:
        for part in parts:
            for table in part.with_format("arrow").iter(batch_size=_BATCH):
                yield table.to_pylist()

    yield from _numbered(batches())


def _numbered(batches: Iterator[list[dict[str, Any]]]) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in batches:
        for row in batch:
            number += 1
            yield number, cast("Row", row)


def _start(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace").strip())


def format_of(name: str) -> Format | None:
    """The format that a file's name promises; None for another kind of file."""
    return _ENDINGS.get(Path(name).suffix.lower())
