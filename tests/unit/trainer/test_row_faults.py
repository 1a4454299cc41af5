"""Rows that cannot be records are given as their own fault, with their column; the rows beside them are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.datasets.dataset import Format, InvalidSample
from services.trainer.datasets.worker.rows import Unreadable, read_rows
from services.trainer.datasets.worker.spec import InputFile

pytestmark = pytest.mark.unit

GOOD = {"prompt": "May I return sandals?", "completion": "Within 60 days."}


def rows(folder: Path, content: bytes, kind: Format = "jsonl") -> list[Any]:
    path = folder / f"data.{kind}"
    path.write_bytes(content)
    return [row for _, row in read_rows(InputFile(path=path, format=kind, name=path.name), limit=1 << 20)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"prompt": "cut \\ud83d", "completion": "c"}', "prompt: half a surrogate pair"),
        (b'{"prompt": "p", "completion": "c", "id": "\\udc00"}', "id: half a surrogate pair"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "messages: half a surrogate pair"),
        (b'{"prompt": "p", "\\ud83d": "c"}', r"\\ud83d: half a surrogate pair"),
        (b'{"prompt": "p", "rating": NaN}', "rating: NaN or infinity"),
        (b'{"prompt": "p", "rating": -Infinity}', "rating: NaN or infinity"),
        (b'{"prompt": "p", "rating": 36893488147419103232}', "rating: integer outside"),
        (b'{"prompt": "p", "more": "\\u0000"}', "more: "),
        (b'{"prompt": "cut short', r"line: '\{.*one JSON object a line"),
        (b'{"prompt": "\xff"}', "line: .*one JSON object a line"),
        (b'{"prompt": ' + b"[" * 5000, "line: .*one JSON object a line"),
        (b'["p", "c"]', "line: .*a JSON object"),
        (b"plain text", "line: 'plain text', expected one JSON object a line"),
    ],
)
def test_a_line_that_is_no_row_names_its_column_and_the_others_are_read(
    tmp_path: Path, line: bytes, fault: str
) -> None:
    good = json.dumps(GOOD).encode()
    before, bad, after = rows(tmp_path, good + b"\n" + line + b"\n" + good + b"\n")
    assert (before, after) == (GOOD, GOOD)
    assert isinstance(bad, InvalidSample)
    with pytest.raises(InvalidSample, match=f"^{fault}"):
        raise bad


def test_line_ends_of_unicode_are_letters_and_marks_of_byte_order_are_none(tmp_path: Path) -> None:
    row = {"prompt": "a\u2028b\u2029c", "completion": "x\u0085y\x0bz"}
    line = json.dumps(row, ensure_ascii=False).encode()
    bom = b"\xef\xbb\xbf"
    assert rows(tmp_path, bom + line + b"\r\n" + bom + line + b"\n" + bom + b"\n") == [row, row]
    table = "prompt,completion\r\na\u2028b\u2029c,x\u0085y\x0bz\r\n".encode()
    assert rows(tmp_path, bom + table, "csv") == [row]


def test_a_row_of_csv_with_other_bytes_or_too_few_values_is_its_own_fault(tmp_path: Path) -> None:
    content = b"prompt,completion\np,c\np,\xff\np\np,c,d\np,c\n"
    first, bytes_, short, long, last = rows(tmp_path, content, "csv")
    assert first == last == {"prompt": "p", "completion": "c"}
    assert str(bytes_) == "completion: the byte 0xff, expected UTF-8"
    assert str(short) == "row: 1 values, expected as many as the 2 columns of the first line"
    assert str(long) == "row: 3 values, expected as many as the 2 columns of the first line"


def test_text_of_a_parquet_file_that_is_no_utf_8_is_the_fault_of_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"p", b"\xff", b"p"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": texts, "completion": ["c"] * 3}), tmp_path / "bad.parquet")
    first, bad, last = rows(tmp_path, (tmp_path / "bad.parquet").read_bytes(), "parquet")
    assert first == last == {"prompt": "p", "completion": "c"}
    assert str(bad) == "prompt: the byte 0xff, expected UTF-8"


@pytest.mark.parametrize("coding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_in_another_coding_is_refused_as_that(tmp_path: Path, coding: str, kind: Format) -> None:
    with pytest.raises(Unreadable, match="UTF-16 or UTF-32, expected UTF-8"):
        rows(tmp_path, json.dumps(GOOD).encode(coding), kind)
