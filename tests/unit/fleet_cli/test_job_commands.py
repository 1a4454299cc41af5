"""Jobs, data sets and trainings: every option reaches the request, and what comes back is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_events import v1
from tests.unit.fleet_cli import recorded
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted


@pytest.mark.requirement("LA-4.2")
def test_every_option_of_the_pipeline_reaches_the_request(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"rank": 8, "epochs": 2, "batchSize": 4}'.replace("batchSize", "batch_size"))
    service.answer("GET /v1/golden/tax-golden-v1", {"dataset_id": "tax-golden-v1", "domain": "tax"})
    service.answer("POST /v1/jobs", {"job_id": "job-1"}, 202)
    result = against(
        *("lifecycle", "run", "--domain", "tax", "--query", "income tax", "--golden-dataset", "tax-golden-v1"),
        *("--method", "dora", "--rank", "32", "--auto-approve-threshold", "90", "--config", str(config), "--no-wait"),
    )
    assert result.exit_code == 0, result.stderr
    assert "job-1" in result.stdout
    assert service.requests[-1].json == {
        "domain": "tax",
        "query": "income tax",
        "goldenDatasetId": "tax-golden-v1",
        "method": "dora",
        "hyperparameters": {"rank": 32, "epochs": 2, "batchSize": 4},
        "autoApproveThreshold": 90,
    }


def test_samples_are_sent_as_ndjson_for_their_domain(against: Lorafleet, service: Scripted) -> None:
    service.answer("POST /v1/samples", {"received": 1, "added": 1, "duplicates": 0}, 201)
    result = against("data", "import", "-", "--domain", "tax", stdin='{"prompt": "ä?", "completion": "b"}\n\n')
    assert "1 samples recorded for tax, 0 were already known" in result.stdout
    [request] = service.requests
    assert (request.path, request.headers["content-type"]) == ("/v1/samples?domain=tax", "application/x-ndjson")
    assert request.json == {"prompt": "ä?", "completion": "b"}


def test_every_hyperparameter_of_the_contract_is_an_option_and_reaches_the_request(
    against: Lorafleet, service: Scripted
) -> None:
    given: dict[str, object] = {}
    for name, field in v1.Hyperparameters.model_fields.items():
        text = str(field.annotation)
        words = {"scheduler": "cosine", "preference_loss": "ipo", "ranking_loss": "rrhf", "target_modules": "q_proj"}
        given[name] = words.get(name, True if "bool" in text else 0.1 if "float" in text else 8)
    options: list[str] = []
    for name, value in given.items():
        option = {"target_modules": "--target-module"}.get(name, "--" + name.replace("_", "-"))
        options += [option] if value is True else [option, str(value)]
    service.answer("POST /v1/jobs", {"job_id": "job-1"}, 202)
    more = ("--objective", "dpo", "--continue-from", "tax-lora-v1.0.0", "--priority", "7", "--export", "gguf")
    result = against("lifecycle", "run", "--domain", "tax", "--no-wait", *options, *more)
    assert result.exit_code == 0, result.stderr
    request = service.requests[-1].json
    assert isinstance(request, dict)
    sent = v1.TrainingRequested.model_validate(request)
    assert sent.hyperparameters is not None
    used = sent.hyperparameters.model_dump(by_alias=False)
    assert {name: used[name] for name in given} == {**given, "target_modules": ("q_proj",)}
    assert (sent.objective, sent.continue_from, sent.priority, sent.exports) == ("dpo", "tax-lora-v1.0.0", 7, ("gguf",))


@pytest.mark.parametrize(
    ("command", "state", "message"),
    [
        ("pause", "running", "job-1 is being paused"),
        ("pause", "paused", "job-1 was paused"),
        ("resume", "queued", "job-1 is queued"),
        ("retry", "queued", "job-1 is queued"),
        ("cancel", "running", "job-1 is being cancelled"),
    ],
)
def test_a_job_is_paused_resumed_retried_and_cancelled(
    against: Lorafleet, service: Scripted, command: str, state: str, message: str
) -> None:
    service.answer(f"POST /v1/jobs/job-1/{command}", {"job_id": "job-1", "state": state}, 202)
    reason = ("--reason", "night") if command in ("pause", "cancel") else ()
    result = against("jobs", command, "job-1", *reason)
    assert message in result.stdout
    assert service.requests[-1].body == (b'{"reason":"night"}' if reason else b"")


def test_a_job_is_shown_with_every_attempt_and_why_it_ended(against: Lorafleet, service: Scripted) -> None:
    service.answer("GET /v1/jobs/job-1", recorded.crashed_job())
    shown = against("jobs", "show", "job-1").stdout
    for shown_part in ("running", "w1", "crashed", "killed by signal 9"):
        assert shown_part in shown


def test_a_failed_build_names_file_row_and_field_and_how_to_name_a_column(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "faq.csv").write_text("question,completion\nMay I?,Yes.\n")
    faults = [
        {
            "field": "sources.0",
            "value": "faq.csv: prompt: no column 'prompt'",
            "expected": "one of completion, question",
        },
        {"field": "sources.1.query", "value": "''", "expected": "words to look for"},
    ]
    service.answer("PUT /v1/uploads", {"upload_id": "a" * 64})
    service.answer("POST /v1/datasets", {"build_id": "b1"}, 202)
    service.answer("GET /v1/datasets/builds/b1", {"build_id": "b1", "state": "failed", "faults": faults})
    shown = against("data", "build", "faq", "--domain", "shop", "--file", str(tmp_path / "faq.csv"))
    assert shown.exit_code == 1
    assert shown.stderr.splitlines() == [
        "error: faq.csv: prompt: no column 'prompt', expected one of completion, question",
        "sources.1.query: '', expected words to look for",
        "name it with --column, for example --column prompt=question",
    ]


def test_the_scale_of_ratings_and_what_becomes_of_unusable_rows_are_options(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "faq.ndjson").write_text('{"prompt": "p", "completion": "c", "rating": 9}\n')
    service.answer("PUT /v1/uploads", {"upload_id": "a" * 64})
    service.answer("POST /v1/datasets", {"build_id": "b1"}, 202)
    file = str(tmp_path / "faq.ndjson")
    options = ("--column", "prompt=q", "--rating-best", "10", "--unusable", "drop", "--live", "--no-wait")
    built = against("data", "build", "faq", "--domain", "shop", "--file", file, *options)
    assert built.exit_code == 0, built.stderr
    assert service.requests[-1].json["sources"] == [  # type: ignore[index]
        {
            "kind": "upload",
            "upload_id": "a" * 64,
            "columns": {"prompt": "q", "rating_best": 10.0},
            "unusable": "drop",
        },
        {"kind": "live", "query": "", "min_rating": None},
    ]
