"""What a file may cost the build process: its rows, its memory, and that the offender is named."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.datasets.build_fault import CannotBuild
from services.trainer.datasets.build_process import run_process
from services.trainer.datasets.columns import Columns
from services.trainer.datasets.dataset import Format, InvalidSample
from services.trainer.datasets.records import Kind
from services.trainer.datasets.worker.parquet import MAX_RATIO, MAX_ROW_BYTES, TooLarge, held_bytes, parquet_rows
from services.trainer.datasets.worker.rows import Unreadable, read_rows
from services.trainer.datasets.worker.spec import (
    BuildOutcome,
    BuildSpec,
    Input,
    InputFile,
    Unbuildable,
    outcome_adapter,
)
from tests.unit.trainer.test_build import spec, started

pytestmark = pytest.mark.unit

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


def file(path: Path, kind: Format) -> InputFile:
    return InputFile(path=path, format=kind, name=path.name)


def rows(path: Path, kind: Format = "jsonl", limit: int = GIBIBYTE) -> list[Any]:
    return [row for _, row in read_rows(file(path, kind), limit=limit)]


def reading(folder: Path, path: Path, written: Format, **changes: Any) -> BuildSpec:
    given = Input(
        files=(file(path, written),),
        columns=changes.pop("columns", Columns()),
        origin="upload",
        unusable="refuse",
        described={},
        field="sources.0",
    )
    return spec(folder, [], inputs=(given,), **changes)


def measured(build_spec: BuildSpec) -> tuple[BuildOutcome, int]:
    """The outcome, and the most memory in bytes that the process held."""
    highest = 0
    with started(build_spec) as process:
        assert process.stdout is not None
        # Its own high-water mark: that of wait4 counts what this process held when it forked.
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            highest = max([highest, *(int(one.split()[1]) for one in status.splitlines() if one.startswith("VmHWM"))])
            time.sleep(0.005)
        outcome = outcome_adapter.validate_json(process.stdout.read())
        assert process.returncode == 0
    return outcome, highest * 1024


def one_value(count: int, size: int) -> pa.DictionaryArray:
    """`count` times the same text of `size` characters, held once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * size]))


def test_a_parquet_file_of_two_gigabytes_in_700_bytes_is_refused_within_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    prompts = one_value(2000, MEBIBYTE)
    pq.write_table(pa.table({"prompt": prompts, "completion": prompts}), path, compression="zstd")
    assert path.stat().st_size < 2000
    outcome, memory = measured(reading(tmp_path, path, "parquet", memory_bytes=GIBIBYTE))
    assert isinstance(outcome, Unbuildable)
    assert "bomb.parquet row 1: completion: 1048576 characters" in outcome.faults[0].value
    print(f"build process: {memory / MEBIBYTE:.0f} MiB")
    assert memory < 300 * MEBIBYTE


def test_a_parquet_row_that_names_one_text_thousands_of_times_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3001], pa.int32()), one_value(3001, MEBIBYTE))
    table = {"prompt": ["p", "q"], "completion": ["c", "d"], "completions": lists}
    pq.write_table(pa.table(table), path, compression="zstd")
    with pytest.raises(Unreadable, match=r"row 2: 3145.* bytes, expected at most 16777216"):
        rows(path, "parquet")
    outcome, memory = measured(reading(tmp_path, path, "parquet", memory_bytes=GIBIBYTE))
    assert isinstance(outcome, Unbuildable)
    assert outcome.faults[0].value.startswith("nested.parquet row 2: 3145")
    assert memory < 300 * MEBIBYTE


def test_what_a_parquet_file_declares_is_held_against_its_size(tmp_path: Path) -> None:
    path = tmp_path / "repeated.parquet"
    text = pa.array(["z" * 1000] * 300_000)
    pq.write_table(pa.table({"prompt": text}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(TooLarge, match=f"at most {MAX_RATIO} for each byte"):
        list(parquet_rows(path, limit=GIBIBYTE))


def test_all_rows_of_a_parquet_file_together_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"prompt": one_value(5000, 10_000)}), path)
    assert sum(map(len, parquet_rows(path, limit=60_000_000))) == 5000
    with pytest.raises(TooLarge, match="rows of more than 40000000 bytes"):
        list(parquet_rows(path, limit=40_000_000))


def test_every_nesting_of_parquet_is_read_as_it_was_written_and_counted_by_slice(tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    written = pa.table(
        {
            "messages": [[{"role": "user", "content": "word " * 5}] * 3] * 3000,
            "extra": pa.array([[("key", "value")]] * 3000, pa.map_(pa.string(), pa.string())),
            "rating": [*range(2999), None],
            "title": [None, *("title" for _ in range(2999))],
        }
    )
    pq.write_table(written, path)
    assert [row for part in parquet_rows(path, limit=GIBIBYTE) for row in part] == written.to_pylist()
    (batch,) = written.combine_chunks().to_batches()
    assert held_bytes(batch) == pytest.approx(sum(held_bytes(batch.slice(at, 500)) for at in range(0, 3000, 500)), 0.02)


def test_a_line_longer_than_a_row_may_be_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"prompt": "p"}\n{"prompt": "' + b"x" * MAX_ROW_BYTES + b'"}\n')
    with pytest.raises(Unreadable, match="line 2: a line of more than 16777216 bytes"):
        rows(path)
    table = tmp_path / "long.csv"
    table.write_bytes(b"prompt,completion\np," + b"x" * MAX_ROW_BYTES + b"\n")
    with pytest.raises(Unreadable, match="line 2: a line of more"):
        rows(table, "csv")
    table.write_bytes(b'prompt,completion\np,"' + b"x\n" * (MAX_ROW_BYTES // 2) + b'"\n')
    with pytest.raises(Unreadable, match="a row of more than"):
        rows(table, "csv")


def test_json_of_any_depth_and_numbers_that_no_record_can_hold_are_the_fault_of_their_row(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_bytes(b'{"prompt": ' + b"[" * 200_000 + b"\n")
    (deep,) = rows(path)
    assert isinstance(deep, InvalidSample)
    path.write_bytes(b'{"rating": ' + b"9" * 4000 + b'}\n{"prompt": NaN}\n{"prompt": "p"}\n')
    large, nan, fine = rows(path)
    assert (type(large["rating"]), type(nan["prompt"]), fine) == (InvalidSample, InvalidSample, {"prompt": "p"})
    outcome, _ = measured(reading(tmp_path, path, "jsonl", kind=Kind.RATED))
    assert isinstance(outcome, Unbuildable)
    assert [one.value.split(":")[0] for one in outcome.faults] == [f"deep.jsonl row {n}" for n in (1, 2, 3)]


async def test_a_build_that_needs_more_memory_than_it_may_have_fails_once_with_the_file_it_read(tmp_path: Path) -> None:
    path = tmp_path / "hungry.jsonl"
    # Members of about twelve bytes in the file and ten times that in memory.
    path.write_bytes(json.dumps({"prompt": {f"{number:x}": 0.5 for number in range(1_100_000)}}).encode() + b"\n")
    assert path.stat().st_size < MAX_ROW_BYTES
    # Python code reports it as an outcome; native code that gets no more memory ends the process.
    try:
        outcome = await run_process(reading(tmp_path, path, "jsonl", memory_bytes=64 * MEBIBYTE))
        assert isinstance(outcome, Unbuildable)
        (fault,) = outcome.faults
    except CannotBuild as refused:
        (fault,) = refused.faults
    assert (fault.field, fault.value.split(":")[0]) == ("sources.0", "hungry.jsonl")
    assert f"{64 * MEBIBYTE} bytes of memory" in fault.value
