"""One command takes an adapter from data to its decision, on the whole fleet and the real base model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from tests.integration.cli.conftest import run_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SMALL = ("--rank", "4", "--max-steps", "2", "--batch-size", "2", "--max-length", "96")
Lines = Callable[[str, int], str]


@pytest.fixture
def files(tmp_path: Path, example_lines: Lines) -> tuple[str, str]:
    data, golden = tmp_path / "data.jsonl", tmp_path / "golden.jsonl"
    data.write_text(example_lines("training", 24))
    golden.write_text(example_lines("golden", 12))
    return str(data), str(golden)


@pytest.mark.heavy
@pytest.mark.requirement("LA-4.1")
@pytest.mark.requirement("LA-4.2")
def test_the_pipeline_goes_through_five_steps_to_a_decision_that_the_registry_shares(
    fleet: Fleet, files: tuple[str, str]
) -> None:
    home, domain = fleet.home.root, "cli-pipeline"
    ran = run_in(
        home,
        *("lifecycle", "run", "--domain", domain, "--query", "Kestrel", "--golden-dataset", f"{domain}-golden-v1"),
        *("--method", "lora", "--auto-approve-threshold", "85", "--data", files[0], "--golden", files[1]),
        *(*SMALL, "--json", "--timeout", "600"),
        timeout=700,
    )
    *steps, outcome = ran.json_lines
    assert [(one["step"], one["name"], one["state"]) for one in steps] == [
        (1, "data", "done"),
        (2, "train", "done"),
        (3, "register", "done"),
        (4, "evaluate", "done"),
        (5, "approve", "done"),
    ]
    # Two steps of training teach nothing: the gate has to say so.
    assert (ran.code, outcome["outcome"]) == (4, "rejected")
    assert 0 < steps[0]["samples"] <= 24
    assert steps[3]["samples"] == 12
    adapter = run_in(home, "adapters", "show", outcome["adapter_id"], "--json").json
    assert adapter["status"] == "rejected"
    assert (adapter["rank"], adapter["method"], adapter["auto_approve_threshold"]) == (4, "lora", 85)
    assert adapter["evaluation"]["score"] == outcome["score"]
    assert outcome["score"] < 70
    chain = run_in(home, "adapters", "provenance", outcome["adapter_id"])
    assert "✓ the chain holds" in chain.out


@pytest.mark.heavy
@pytest.mark.requirement("TP-4.1")
def test_training_from_the_command_line_takes_a_data_set_and_a_configuration_and_shows_progress(
    fleet: Fleet, files: tuple[str, str], tmp_path: Path
) -> None:
    home, domain = fleet.home.root, "cli-training"
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"rank": 4, "max_steps": 4, "batch_size": 2, "max_length": 96, "seed": 3}))
    first = run_in(home, "train", "--domain", domain, "--data", files[0], *SMALL, timeout=400)
    assert first.code == 0, first.err
    [dataset] = [one for one in run_in(home, "data", "list", "--json").json if one["domain"] == domain]
    arguments = ("--domain", domain, "--dataset", dataset["dataset_id"], "--config", str(config), "--rank", "8")
    ran = run_in(home, "train", *arguments, timeout=400)
    assert ran.code == 0, ran.err
    assert [line.split()[0] for line in ran.out.splitlines() if "steps loss" in line][-1] == "4/4"
    assert f"data set {dataset['dataset_id']}" in ran.out
    [job, _] = [one for one in run_in(home, "jobs", "list", "--json").json if one["domain"] == domain]
    assert job["state"] == "succeeded"
    assert (job["configuration"]["rank"], job["configuration"]["seed"]) == (8, 3)
    metrics = run_in(home, "jobs", "metrics", job["job_id"], "--json").json
    assert [one["step"] for one in metrics] == [1, 2, 3, 4]


def test_a_training_that_cannot_succeed_ends_with_its_reason(fleet: Fleet) -> None:
    ran = run_in(fleet.home.root, "train", "--domain", "cli-nothing", "--timeout", "120")
    assert ran.code == 4
    assert "❌ training failed: " in ran.out
    assert "cli-nothing" in ran.out
    assert ran.err == ""


@pytest.mark.heavy
def test_a_command_that_stops_following_leaves_the_job_to_the_fleet(fleet: Fleet, files: tuple[str, str]) -> None:
    home, domain = fleet.home.root, "cli-impatient"
    ran = run_in(home, "train", "--domain", domain, "--data", files[0], *SMALL, "--timeout", "1")
    assert ran.code == 1
    assert "it keeps running" in ran.err
    [job] = [one for one in run_in(home, "jobs", "list", "--json").json if one["domain"] == domain]
    assert job["state"] in ("queued", "running")
    assert run_in(home, "jobs", "cancel", job["job_id"]).code == 0
