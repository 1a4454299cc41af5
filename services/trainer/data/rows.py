"""Rows of files, whatever their format, one at a time and each of bounded size."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from fleet_events.strict_json import read_json
from services.trainer.data.build_spec import InputFile
from services.trainer.data.columns import Row
from services.trainer.data.dataset import Format, InvalidSample
from services.trainer.data.parquet_rows import MAX_ROW_BYTES, TooLarge, parquet_rows

_BATCH = 1024
_ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class Unreadable(Exception):
    """A file is not what its format says."""

    def __init__(self, file: InputFile, place: str, found: str, expected: str) -> None:
        super().__init__(f"{file.name} {place}: {found}, expected {expected}")
        self.file = f"{file.name} {place}".strip()
        self.found = found
        self.expected = expected


def read_rows(file: InputFile, *, limit: int) -> Iterator[tuple[int, Row | InvalidSample]]:
    """Numbered rows of a file, from 1. One that is JSON, but nothing that a record can be made of, is its fault.

    Args:
        limit: bytes that all rows of a compressed file may hold together.

    Raises:
        Unreadable: the file is not what its format says, or a row is larger than 16 MiB.
    """
    match file.format:
        case "jsonl" | "records":
            yield from _json_lines(file)
        case "csv":
            yield from _csv(file)
        case "parquet":
            yield from _parquet(file, limit)
        case "folder":
            yield from _folder(file)


def _json_lines(file: InputFile) -> Iterator[tuple[int, Row | InvalidSample]]:
    with file.path.open("rb") as lines:
        for number, line in enumerate(_bounded(lines, file), 1):
            if not line.strip():
                continue
            try:
                row = read_json(line)
            except ValueError as error:
                if not _is_json(line):
                    raise Unreadable(file, f"line {number}", _start(line), "one JSON object a line") from error
                yield number, InvalidSample("line", str(error)[:200], "values that the fleet can hold")
                continue
            if not isinstance(row, dict):
                raise Unreadable(file, f"line {number}", _start(line), "a JSON object")
            yield number, row


def _csv(file: InputFile) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    # With a mark of byte order or without: spreadsheets write one.
    with file.path.open(encoding="utf-8-sig", newline="") as opened:
        lines = _RowBytes(opened, file)
        reader = csv.DictReader(lines, strict=True)
        try:
            for number, row in enumerate(reader, 1):
                lines.begin_row()
                if None in row or None in row.values():
                    expected = f"as many values as the {len(reader.fieldnames or ())} columns of the first line"
                    raise Unreadable(file, f"row {number}", f"{len(row)} values or more", expected)
                yield number, row
        except UnicodeDecodeError as error:
            raise Unreadable(file, f"byte {error.start}", error.reason, "UTF-8") from error
        except csv.Error as error:
            raise Unreadable(file, f"line {reader.line_num}", str(error), "CSV with a first line of names") from error


class _RowBytes:
    """Lines of text that refuse to become a row beyond `MAX_ROW_BYTES` characters: a quoted value may span lines."""

    def __init__(self, lines: IO[str], file: InputFile) -> None:
        self._lines = _bounded(lines, file)
        self._file = file
        self._characters = 0
        self._number = 0

    def __iter__(self) -> "_RowBytes":
        return self

    def __next__(self) -> str:
        line: str = next(self._lines)
        self._number += 1
        self._characters += len(line)
        if self._characters > MAX_ROW_BYTES:
            raise _too_long(self._file, self._number, "row")
        return line

    def begin_row(self) -> None:
        """The row that the last lines made is complete."""
        self._characters = 0


def _bounded(lines: Any, file: InputFile) -> Iterator[Any]:
    """Lines of an open file, bytes or text, none of which is read beyond `MAX_ROW_BYTES`."""
    number = 0
    while line := lines.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise _too_long(file, number, "line")
        yield line


def _too_long(file: InputFile, number: int, what: str) -> Unreadable:
    return Unreadable(
        file, f"line {number}", f"a {what} of more than {MAX_ROW_BYTES} bytes", f"at most {MAX_ROW_BYTES}"
    )


def _parquet(file: InputFile, limit: int) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa

    try:
        yield from _numbered(parquet_rows(file.path, limit=limit))
    except TooLarge as error:
        raise Unreadable(file, error.place, error.found, error.expected) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise Unreadable(file, "", str(error)[:500], "a Parquet file") from error


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


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _start(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace").strip())


def format_of(name: str) -> Format | None:
    """The format that a file's name promises; None for another kind of file."""
    return _ENDINGS.get(Path(name).suffix.lower())
