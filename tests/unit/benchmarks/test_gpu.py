"""The GPU benchmark's mechanics, with tiny shapes on the processor."""

import json

import pytest
import torch

from benchmarks import gpu


def test_a_quick_run_measures_serving_and_names_what_it_did_not_measure(tmp_path) -> None:
    target = tmp_path / "gpu.json"
    assert gpu.main(["--quick", "--parts", "agree,serve,train", "--json", str(target)]) == 0
    rows = {row["what"]: row for row in json.loads(target.read_text())["rows"]}
    assert rows["decode, tiny, 2 rows, each its own adapter"]["ours"] > 0
    assert "today's engine" in rows["decode, tiny, 2 rows, base"]["peers"]
    same = next(row for what, row in rows.items() if what.startswith("greedy tokens equal"))
    assert same["ours"] == 100, "the decoder and the engine, float32"
    missing = {what for what, row in rows.items() if row["ours"] is None}
    assert missing == {*gpu.NOT_BUILT, "training"}
    assert all(rows[what]["note"].startswith("not measured: ") for what in missing)


def test_a_part_that_fails_or_has_no_time_left_is_a_row_that_was_not_measured(tmp_path) -> None:
    report = gpu.Report(tmp_path / "gpu.json", end=float("inf"))

    def fails() -> list:
        raise RuntimeError("out of memory")

    report.part("broken", fails)
    late = gpu.Report(None, end=0.0)
    late.part("late", fails)
    assert [(row.ours, row.note) for row in (*report.rows, *late.rows)] == [
        (None, "not measured: RuntimeError: out of memory"),
        (None, "not measured: no time was left"),
    ]
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"][0]["what"] == "broken"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_a_full_run_without_a_gpu_is_refused() -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "serve"])
    with pytest.raises(SystemExit):
        gpu.main(["--quick", "--parts", "speed"])
