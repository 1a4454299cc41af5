"""Rows about a person are struck from uploaded files; all others stay as they are, in every format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.datasets.dataset import Format
from services.trainer.datasets.subject_digest import digest_of
from services.trainer.datasets.worker.strike import StrikeSpec, Struck, strike

pytestmark = pytest.mark.unit

KEY = b"k" * 32
ANNA = digest_of(KEY, "anna")
ROWS: list[dict[str, Any]] = [
    {"prompt": "Where?", "completion": "Here,\n\"there\"", "subject": "anna", "author": ""},
    {"prompt": "Who?", "completion": "Nobody", "subject": "bert", "author": "anna"},
    {"prompt": "Why?", "completion": "For é", "subject": "", "author": ""},
]  # fmt: skip


def written(path: Path, fmt: Format, rows: list[dict[str, Any]]) -> Path:
    match fmt:
        case "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows))
        case "csv":
            with path.open("w", newline="") as file:
                made = csv.DictWriter(file, list(ROWS[0]))
                made.writeheader()
                made.writerows(rows)
        case _:
            pq.write_table(pa.Table.from_pylist(rows, pa.Table.from_pylist(ROWS).schema), path, row_group_size=2)
    return path


def read(path: Path, fmt: Format) -> list[dict[str, Any]]:
    match fmt:
        case "jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case "csv":
            with path.open(newline="") as file:
                return list(csv.DictReader(file))
        case _:
            return list(pq.read_table(path).to_pylist())


def struck(path: Path, fmt: Format, *columns: str) -> tuple[Struck, Path]:
    copy = path.with_name("copy")
    given = StrikeSpec(path=path, format=fmt, copy_to=copy, columns=columns or ("subject",), key=KEY.hex(),
                       subjects=frozenset({ANNA}), limit=10**6)  # fmt: skip
    return strike(given), copy


@pytest.mark.requirement("LA-1.7")
@pytest.mark.parametrize("fmt", ["jsonl", "csv", "parquet"])
def test_rows_about_the_person_go_and_the_others_stay_as_they_are(tmp_path: Path, fmt: Format) -> None:
    file = written(tmp_path / "file", fmt, ROWS)
    found, copy = struck(file, fmt)
    assert found == Struck(rows={ANNA: 1})
    assert read(copy, fmt) == ROWS[1:]
    found, copy = struck(file, fmt, "subject", "author")
    assert found == Struck(rows={ANNA: 2})
    assert read(copy, fmt) == ROWS[2:]


@pytest.mark.parametrize("fmt", ["jsonl", "csv", "parquet"])
def test_a_file_without_a_row_about_the_person_is_not_copied(tmp_path: Path, fmt: Format) -> None:
    found, copy = struck(written(tmp_path / "file", fmt, ROWS[1:]), fmt)
    assert (found, copy.exists()) == (Struck(), False)


def test_lines_that_are_no_rows_and_rows_about_several_people(tmp_path: Path) -> None:
    lines = ["no json", "", json.dumps({"subject": ["bert", "anna"], "prompt": "p"}), json.dumps(["anna"]), "{}"]
    (tmp_path / "file").write_text("\n".join(lines) + "\n")
    found, copy = struck(tmp_path / "file", "jsonl")
    assert (found.rows, copy.read_text().splitlines()) == ({ANNA: 1}, [*lines[:2], *lines[3:]])


def test_a_file_that_cannot_be_read_is_left_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"PAR1 not really")
    found, copy = struck(tmp_path / "file", "parquet")
    assert (found.rows, bool(found.unreadable), copy.exists()) == ({}, True, False)
