"""Bad input ends with exit code 2 and one line that names the option and what would be right; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet_cli.files import read_lines
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted


@pytest.mark.requirement("LA-4.2")
@pytest.mark.parametrize(
    ("arguments", "named", "right"),
    [
        (["lifecycle", "run"], "--domain", "Missing"),
        (["lifecycle", "run", "--domain", "Tax Law"], "--domain", "lower-case letters"),
        (["lifecycle", "run", "--domain", "tax", "--rank", "0"], "--rank", "greater than or equal to 1"),
        (["lifecycle", "run", "--domain", "tax", "--rank", "257"], "--rank", "less than or equal to 256"),
        (["lifecycle", "run", "--domain", "tax", "--rank", "many"], "--rank", "integer"),
        (["lifecycle", "run", "--domain", "tax", "--method", "full"], "--method", "'lora', 'rslora', 'qlora', 'dora'"),
        (
            ["lifecycle", "run", "--domain", "tax", "--auto-approve-threshold", "101"],
            "--auto-approve-threshold",
            "less than or equal to 100",
        ),
        (["lifecycle", "run", "--domain", "tax", "--learning-rate", "2"], "--learning-rate", "0.1"),
        (["lifecycle", "run", "--domain", "tax", "--version", "1.0"], "--version", "pattern"),
        (["lifecycle", "run", "--domain", "tax", "--query", "x", "--dataset", "y"], "--query", "not both"),
        (["lifecycle", "run", "--domain", "tax", "--data", "nowhere.jsonl"], "--data", "cannot be read"),
        (["lifecycle", "run", "--domain", "tax", "--config", "nowhere.json"], "--config", "cannot be read"),
        (["train", "--domain", "tax", "--scheduler", "wavy"], "--scheduler", "'constant', 'linear', 'cosine'"),
        (["adapters", "list", "--status", "lost"], "--status", "'pending_review', 'approved', 'rejected'"),
        (["adapters", "register", "nowhere", "--domain", "tax"], "FOLDER", "adapter_config.json"),
        (["golden", "create", "g", "--domain", "tax", "--version", "one"], "--version", "X.Y.Z"),
        (["feedback", "gen-1", "--rating", "6"], "--rating", "less than or equal to 5"),
        (["feedback", "gen-1", "--right-family", "tax-lora"], "--right-family", "--routed-wrongly"),
        (["token", "mint", "--scopes", "everything"], "--scopes", "adapters:read"),
        (["token", "mint", "--scopes", "train", "--domains", "A B"], "--domains", "lower-case"),
        (["token", "mint", "--scopes", "train"], "--home", "lorafleet up"),
        (["token", "mint", "--scopes", "fleet:admin", "--domains", "tax"], "--scopes", "every domain"),
        (["token", "mint", "--scopes", "train", "--domains", "shop*"], "--domains", "shop*"),
        (["events", "publish", "Aproved", "-"], "TYPE", "expected one of"),
        (["events", "publish", "Approved", "-"], "TYPE", "upstream systems may publish"),
        (["events", "tail", "--type", "Aproved"], "--type", "expected one of"),
        (["demo", "--examples", "nowhere"], "--examples", "training.jsonl"),
        (["adapters", "lst"], "lst", "No such command"),
        (["adapters", "list", "--stats", "x"], "--stats", "--status"),
    ],
)
def test_the_line_names_the_option_and_what_would_be_right(
    lorafleet: Lorafleet, arguments: list[str], named: str, right: str
) -> None:
    result = lorafleet(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert named in result.stderr
    assert right in result.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "has no lines"),
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 must be an object"),
        ('{"prompt": "p", "completion": "c"}\n{"prompt": "p"}', "line 2: completion is missing"),
        ('{"prompt": 7, "completion": "c"}', "line 1: prompt is 7"),
        ('{"prompt": "p", "completion": "c", "rating": 9}', "rating is 9; use a number from 0 to 5"),
    ],
)
def test_a_bad_sample_is_named_by_its_line_and_nothing_is_sent(
    against: Lorafleet, service: Scripted, tmp_path: Path, lines: str, message: str
) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(lines)
    result = against("data", "import", str(file), "--domain", "tax")
    assert result.exit_code == 2
    assert message in result.stderr
    assert service.requests == []


def test_a_bad_golden_file_stops_a_run_before_anything_is_sent(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    data, golden = tmp_path / "data.jsonl", tmp_path / "golden.jsonl"
    data.write_text('{"prompt": "p", "completion": "c"}')
    golden.write_text('{"prompt": "p", "expected_output": "e", "difficulty": "cruel"}')
    files = ("--data", str(data), "--golden", str(golden), "--golden-dataset", "g")
    result = against("lifecycle", "run", "--domain", "tax", *files)
    assert result.exit_code == 2
    assert "difficulty is 'cruel'; use one of easy, medium, hard" in result.stderr
    assert service.requests == []


def test_a_golden_data_set_that_does_not_exist_is_noticed_before_training(
    against: Lorafleet, service: Scripted
) -> None:
    result = against("lifecycle", "run", "--domain", "tax", "--golden-dataset", "tax-golden-v1")
    assert result.exit_code == 2
    assert "--golden-dataset: 'tax-golden-v1' does not exist" in result.stderr
    assert [one.method for one in service.requests] == ["GET"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json: read as JSON (names of YAML files end in .yaml or .yml): EOF"),
        ("config.json", "[]", "must hold an object"),
        ("config.json", '{"rnak": 3}', "unknown hyperparameter 'rnak'; expected one of rank"),
        ("config.json", '{"rank": 999}', "rank 999 is invalid"),
        ("config.yaml", "rank: 8\nrank: 16", 'config.yaml: not YAML: line 2: found duplicate key "rank"'),
        ("config.yml", "rnak: 3", "unknown hyperparameter 'rnak'; expected one of rank"),
        ("config.yml", "rank: 999", "rank 999 is invalid"),
    ],
)
def test_a_bad_configuration_file_is_refused(
    lorafleet: Lorafleet, tmp_path: Path, name: str, content: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    result = lorafleet("train", "--domain", "tax", "--config", str(file))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_broken_event_body_is_refused_with_its_field(lorafleet: Lorafleet) -> None:
    body = json.dumps({"domain": "tax", "hyperparameters": {"rank": 9999}})
    result = lorafleet("events", "publish", "TrainingRequested", "-", "--dry-run", stdin=body)
    assert result.exit_code == 2
    assert "hyperparameters.rank" in result.stderr
    assert "9999" in result.stderr


def test_an_unreadable_fleet_file_is_named(lorafleet: Lorafleet, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "fleet.json").write_text('{"services": 7}')
    result = lorafleet("adapters", "list")
    assert result.exit_code == 2
    assert "fleet.json is not a fleet file: services" in result.stderr


def test_lines_of_a_file_may_hold_line_ends_of_unicode_and_begin_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    row = {"prompt": "a\u2028b", "completion": "x\u0085y"}
    (tmp_path / "data.jsonl").write_text(
        "\ufeff" + f"{json.dumps(row, ensure_ascii=False)}\r\n" * 2, "utf-8", newline=""
    )
    assert read_lines(str(tmp_path / "data.jsonl"), "--data", ("prompt",)) == [row, row]
