"""Rows of files of every format, one at a time and each of bounded size."""

import codecs
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fleet_events.strict_json import read_json
from services.trainer.datasets.columns import Row
from services.trainer.datasets.dataset import Format, InvalidSample
from services.trainer.datasets.worker.parquet import MAX_ROW_BYTES, TooLarge, parquet_rows, rows_of
from services.trainer.datasets.worker.spec import InputFile

_BATCH = 1024
_ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class Unreadable(Exception):
    """A file is not of its format."""

    def __init__(self, file: InputFile, place: str, found: str, expected: str) -> None:
        super().__init__(f"{file.name} {place}: {found}, expected {expected}")
        self.file = f"{file.name} {place}".strip()
        self.found = found
        self.expected = expected


def read_rows(file: InputFile, *, limit: int) -> Iterator[tuple[int, Row | InvalidSample]]:
    """Numbered rows of a file, from 1. A row of which no record can be made is given as its fault, with its column.

    Args:
        limit: bytes that all rows of a compressed file may hold together.

    Raises:
        Unreadable: the file is not of its format, or a row is larger than 16 MiB.
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
    _refuse_wide_text(file)
    with file.path.open("rb") as lines:
        for number, line in enumerate(_bounded(lines, file), 1):
            # Files that were put together have a mark of byte order in their midst too.
            text = line.removeprefix(codecs.BOM_UTF8)
            if not text.strip():
                continue
            try:
                row = read_json(text)
            except ValueError as error:
                yield number, _readable_columns(text, str(error))
                continue
            yield number, row if isinstance(row, dict) else InvalidSample("line", _start(text), "a JSON object")


def _csv(file: InputFile) -> Iterator[tuple[int, Row | InvalidSample]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    _refuse_wide_text(file)
    # With a mark of byte order or without: spreadsheets write one. Bytes that are no UTF-8 are the fault of their row.
    with file.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        lines = _RowBytes(opened, file)
        reader = csv.DictReader(lines, strict=True)
        try:
            _check_delimiter(reader.fieldnames or (), file)
            for number, row in enumerate(reader, 1):
                lines.begin_row()
                yield number, _csv_fault(row, reader.fieldnames or ()) or row
        except csv.Error as error:
            raise Unreadable(file, f"line {reader.line_num}", str(error), "CSV with a first line of names") from error


def _check_delimiter(names: Sequence[str], file: InputFile) -> None:
    """Spreadsheets of many countries separate by semicolons: their first line is then one long name."""
    if len(names) != 1:
        return
    for delimiter, called in {";": "semicolons", "\t": "tabs", "|": "vertical bars"}.items():
        if delimiter in names[0]:
            expected = f"values separated by commas; this file seems to have {called}"
            raise Unreadable(file, "line 1", f"one column called {names[0][:100]!r}", expected)


def _csv_fault(row: Mapping[str | None, Any], names: Sequence[str]) -> InvalidSample | None:
    if None in row or None in row.values():
        found = sum(value is not None for name, value in row.items() if name is not None) + len(row.get(None, ()))
        return InvalidSample("row", f"{found} values", f"as many as the {len(names)} columns of the first line")
    for name, value in row.items():
        if not_utf8 := _undecoded(f"{name}{value}"):
            return InvalidSample(_printable(str(name)), not_utf8, "UTF-8")
    return None


def _undecoded(text: str) -> str:
    """What is wrong with text in which undecodable bytes were kept as half surrogates (PEP 383)."""
    found = next((letter for letter in text if "\udc80" <= letter <= "\udcff"), "")
    return f"the byte 0x{ord(found) - 0xDC00:02x}" if found else ""


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


def _parquet(file: InputFile, limit: int) -> Iterator[tuple[int, Row | InvalidSample]]:
    import pyarrow as pa

    try:
        yield from _numbered(parquet_rows(file.path, limit=limit))
    except TooLarge as error:
        raise Unreadable(file, error.place, error.found, error.expected) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise Unreadable(file, "", str(error)[:500], "a Parquet file") from error


def _folder(file: InputFile) -> Iterator[tuple[int, Row | InvalidSample]]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(file.path))
    except (FileNotFoundError, ValueError) as error:
        raise Unreadable(file, "", str(error), "a folder that datasets' save_to_disk wrote") from error
    parts = [loaded[name] for name in sorted(loaded)] if isinstance(loaded, DatasetDict) else [loaded]

    def batches() -> Iterator[list[Row | InvalidSample]]:
        for part in parts:
            for table in part.with_format("arrow").iter(batch_size=_BATCH):
                yield rows_of(table)

    yield from _numbered(batches())


def _numbered(batches: Iterator[list[Row | InvalidSample]]) -> Iterator[tuple[int, Row | InvalidSample]]:
    number = 0
    for batch in batches:
        for row in batch:
            number += 1
            yield number, row


def _refuse_wide_text(file: InputFile) -> None:
    """UTF-16 and UTF-32 begin with a byte order mark that is not UTF-8."""
    with file.path.open("rb") as opened:
        if opened.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise Unreadable(file, "byte 0", "UTF-16 or UTF-32", "UTF-8")


def _readable_columns(line: bytes, reason: str) -> Row | InvalidSample:
    """A line that the fleet's reader refuses: a row in which each column at fault has its fault as its value.

    The fault is raised where that column is read (see `Columns`): pandas writes NaN for what it does not have, and a
    column that no recipe reads may hold anything. A column whose name is at fault cannot be read and is left out. What
    is no JSON object, or too much of one, is a fault as a whole.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return InvalidSample("line", _start(line), "one JSON object a line")
    if not isinstance(row, dict):
        return InvalidSample("line", reason[:200], "values that the fleet can hold")
    named = {name: value for name, value in row.items() if not _value_fault(name)}
    faults = {name: fault for name, value in named.items() if (fault := _value_fault(value))}
    sound = {name: value for name, value in named.items() if name not in faults}
    try:
        read_json(json.dumps(sound))
    except ValueError as error:
        return InvalidSample("line", str(error)[:200], "values that the fleet can hold")
    return sound | {
        name: InvalidSample(_printable(name), fault, "values that the fleet can hold") for name, fault in faults.items()
    }


def _value_fault(value: object) -> str:
    try:
        read_json(json.dumps(value))
    except RecursionError:
        return "nested too deep"
    except ValueError as error:
        text = json.dumps(value, ensure_ascii=False)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            return "half a surrogate pair"
        if "NaN" in text or "Infinity" in text:
            return "NaN or infinity"
        return str(error)[:200].removeprefix("body: ")
    return ""


def _printable(name: str) -> str:
    return name[:100].encode(errors="backslashreplace").decode()


def _start(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace").strip())


def format_of(name: str) -> Format | None:
    """The format that a file's name promises; None for another kind of file."""
    return _ENDINGS.get(Path(name).suffix.lower())
