"""lm-evaluation-harness, as a program that writes what the real one writes: what is read of it, and how it is bounded."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fleet_cli.harness import Harness, run_tasks
from lorafleet.errors import BadInput, FleetError

TASK = "task: crates\ndataset_path: json\n"
WRITES = """\
import json, os, pathlib, sys
given = dict(zip(sys.argv[2:], sys.argv[3:]))
out = pathlib.Path(given["--output_path"]) / "model"
out.mkdir(parents=True)
told = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
(pathlib.Path(__file__).parent / "told.json").write_text(json.dumps(told))
numbers = {"name": "crates", "sample_len": 4, "exact_match,none": 0.75, "exact_match_stderr,none": 0.25,
           "exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A", "perplexity,none": 12.5,
           "perplexity_stderr,none": 0.5}
(out / "results_2026-12-01T10-00-00.123.json").write_text(json.dumps({"results": {"crates": numbers}}))
rows = [{"doc_id": n, "filter": "none", "metrics": ["exact_match"], "exact_match": float(n > 0)} for n in range(4)]
(out / "samples_crates_2026-12-01T10-00-00.123.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    file = tmp_path / "tasks" / "crates.yaml"
    file.parent.mkdir()
    file.write_text(TASK)
    return file


def program(folder: Path, code: str) -> str:
    file = folder / "lm_eval"
    file.write_text(f"#!{sys.executable}\n{code}")
    file.chmod(0o755)
    return str(file)


def test_means_have_their_documents_interval_and_other_metrics_two_standard_errors(tmp_path: Path, tasks: Path) -> None:
    harness = Harness(program(tmp_path, WRITES))
    found = {one.name: one for one in run_tasks(harness, "shop-lora-v1.0.0", tasks, "http://fleet:8105", "key")}
    assert set(found) == {
        "lm-eval.crates.exact_match",
        "lm-eval.crates.exact_match:strict",
        "lm-eval.crates.perplexity",
    }
    mean = found["lm-eval.crates.exact_match"]
    assert (mean.value, mean.samples) == (0.75, 4)
    assert mean.ci_low is not None
    assert mean.ci_high is not None
    assert (round(mean.ci_low, 3), round(mean.ci_high, 3)) == (0.193, 0.994)  # 3 of 4, as a score has it
    strict = found["lm-eval.crates.exact_match:strict"]
    assert (strict.value, strict.ci_low, strict.samples) == (0.5, None, 4)
    assert (found["lm-eval.crates.perplexity"].ci_low, found["lm-eval.crates.perplexity"].ci_high) == (11.52, 13.48)
    assert "ci_low" not in strict.body


def test_the_program_gets_the_task_the_version_and_no_credential_but_the_one(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFLEET_TOKEN", "secret")
    harness = Harness(program(tmp_path, WRITES), limit=3, tokenizer="/models/base")
    run_tasks(harness, "shop-lora-v1.0.0", tasks, "http://fleet:8105/", "key")
    told = json.loads((tmp_path / "told.json").read_text())
    given = dict(zip(told["argv"][1:], told["argv"][2:], strict=False))
    assert (given["--tasks"], given["--model"], given["--limit"]) == ("crates", "local-completions", "3")
    assert "model=shop-lora-v1.0.0," in given["--model_args"]
    assert "base_url=http://fleet:8105/v1/completions" in given["--model_args"]
    assert "key" not in " ".join(told["argv"]).replace("tokenizer", "")
    assert (told["cwd"], told["env"]["OPENAI_API_KEY"]) == (str(tasks.parent), "key")
    assert told["env"]["HF_HUB_OFFLINE"] == "1"
    assert "LORAFLEET_TOKEN" not in told["env"]
    assert not os.path.exists(told["env"]["HOME"])  # its home is gone


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; print('KeyError: no such task'); sys.exit(1)", "ended with status 1: KeyError: no such task"),
        ("import time; time.sleep(60)", "did not end within 0.5 s"),
        ("pass", "measured nothing for task crates"),
    ],
)
def test_a_program_that_fails_is_an_error_with_its_last_line(tmp_path: Path, tasks: Path, code: str, why: str) -> None:
    seconds = 0.5 if "sleep" in code else 30.0
    with pytest.raises(FleetError, match=why):
        run_tasks(Harness(program(tmp_path, code), seconds=seconds), "shop-lora-v1.0.0", tasks, "http://fleet", "key")


def test_a_file_without_a_task_and_a_program_that_is_not_there_are_named(tmp_path: Path, tasks: Path) -> None:
    with pytest.raises(BadInput, match="--program: 'no-such-program' is not there"):
        run_tasks(Harness("no-such-program"), "shop-lora-v1.0.0", tasks, "http://fleet", "key")
    tasks.write_text("dataset_path: json\n")
    with pytest.raises(BadInput, match="names no task"):
        run_tasks(Harness(program(tmp_path, WRITES)), "shop-lora-v1.0.0", tasks, "http://fleet", "key")
    with pytest.raises(BadInput, match="cannot be read"):
        run_tasks(Harness(program(tmp_path, WRITES)), "shop-lora-v1.0.0", tmp_path / "none.yaml", "http://fleet", "key")


@pytest.mark.parametrize("kind", ["multiple_choice", "loglikelihood", "loglikelihood_rolling"])
def test_a_task_of_likelihoods_needs_a_tokenizer_before_anything_runs(tmp_path: Path, tasks: Path, kind: str) -> None:
    tasks.write_text(f"task: crates\noutput_type: {kind}\n")
    with pytest.raises(BadInput, match=f"--tokenizer: task crates measures likelihoods \\({kind}\\)"):
        run_tasks(Harness(program(tmp_path, WRITES)), "shop-lora-v1.0.0", tasks, "http://fleet", "key")
    assert not (tmp_path / "told.json").exists()
