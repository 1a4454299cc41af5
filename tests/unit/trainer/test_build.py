"""The building subprocess by itself: what it writes, what it refuses, and that it never outlives who started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.trainer.datasets import records
from services.trainer.datasets.filters import FilterRecipe
from services.trainer.datasets.generators import GeneratorRecipe
from services.trainer.datasets.records import Kind, Record
from services.trainer.datasets.subject_digest import digest_of
from services.trainer.datasets.worker.card import DataCard
from services.trainer.datasets.worker.spec import (
    BuildOutcome,
    BuildSpec,
    Built,
    Input,
    InputFile,
    Unbuildable,
    outcome_adapter,
)

pytestmark = pytest.mark.unit

FORMS = ("Please answer: {prompt}", "I ask: {prompt}")


def spec(folder: Path, lines: list[dict[str, Any]], **changes: Any) -> BuildSpec:
    work = folder / "work"
    work.mkdir()
    source = folder / "gates.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = Input(
        files=(InputFile(path=source, format="jsonl", name="gates.jsonl"),),
        origin="upload",
        unusable="refuse",
        described={"kind": "upload"},
        field="sources.0",
    )
    made = BuildSpec(
        domain="shop",
        name="gates",
        kind=Kind.COMPLETION,
        inputs=(given,),
        filters=FilterRecipe(),
        validation_part=0.0,
        seed=0,
        licence="MIT",
        work=work,
        supervisor=os.getpid(),
    )
    return made.model_copy(update=changes)


def started(build_spec: BuildSpec) -> subprocess.Popen[bytes]:
    file = build_spec.work / "spec.json"
    file.write_text(build_spec.model_dump_json())
    command = [sys.executable, "-m", "services.trainer.datasets.worker", str(file)]
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=path)


def run(build_spec: BuildSpec) -> BuildOutcome:
    with started(build_spec) as process:
        assert process.stdout is not None
        outcome = outcome_adapter.validate_json(process.stdout.read())
        assert process.wait() == 0
    return outcome


def build(build_spec: BuildSpec) -> tuple[list[Record], DataCard]:
    outcome = run(build_spec)
    assert isinstance(outcome, Built), outcome
    return list(records.read(outcome.data)), DataCard.model_validate_json(outcome.card.read_bytes())


def lines(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What does gate number {n} open to?", "completion": f"To yard {n}."} for n in range(count)]


@pytest.mark.requirement("AS-3.1")
def test_generated_records_are_synthetic_only_train_and_never_reword_a_validating_prompt(tmp_path: Path) -> None:
    generators = GeneratorRecipe.model_validate(
        {"generators": [{"kind": "paraphrase", "name": "wordings", "forms": FORMS, "per_record": 2}]}
    )
    found, card = build(spec(tmp_path, lines(60), generators=generators, validation_part=0.3))
    made = [record for record in found if record.synthetic]
    validating = {record.prompt_text for record in found if record.split == "validation"}
    training = {record.prompt_text for record in found if record.split == "train" and not record.synthetic}
    assert len(validating) + len(training) == 60
    assert 5 < len(validating) < 35
    assert {record.prompt_text for record in made} == {form.format(prompt=one) for form in FORMS for one in training}
    assert all(record.split == "train" and "wordings" in record.origin for record in made)
    assert (card.samples, card.synthetic, card.split.validation) == (len(found), len(made), len(validating))
    assert card.generated.generators["wordings"].made == len(made)


def test_the_same_spec_gives_the_same_card_and_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = (run(spec(tmp_path / name, lines(30), validation_part=0.2)) for name in ("one", "two"))
    assert isinstance(first, Built)
    assert isinstance(second, Built)
    assert first.data.read_bytes() == second.data.read_bytes()
    assert first.card.read_bytes() == second.card.read_bytes()


def test_a_row_that_makes_no_record_refuses_the_build_or_is_counted(tmp_path: Path) -> None:
    rows = [*lines(3), {"prompt": "p", "completion": ""}, {"prompt": "p", "completion": 7}]
    for name in ("refused", "counted"):
        (tmp_path / name).mkdir()
    refused = run(spec(tmp_path / "refused", rows))
    assert isinstance(refused, Unbuildable)
    assert list(map(str, refused.faults)) == [
        "sources.0: gates.jsonl row 4: completion: blank is refused, expected text",
        "sources.0: gates.jsonl row 5: completion: 7 is refused, expected text or messages",
    ]
    build_spec = spec(tmp_path / "counted", rows)
    tolerant = build_spec.inputs[0].model_copy(update={"unusable": "drop"})
    found, card = build(build_spec.model_copy(update={"inputs": (tolerant,)}))
    (source,) = card.sources
    assert (len(found), source.rows, source.records, source.unusable) == (3, 5, 3, 2)
    assert [one.place for one in source.examples] == ["gates.jsonl row 4", "gates.jsonl row 5"]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([], {}, "sources: no record (sources.0: 0 rows, 0 unusable)"),
        (
            lines(3),
            {"filters": {"length": {"min_prompt_characters": 500}}},
            "filters: 3 records, all dropped (length 3)",
        ),
        (lines(1), {"validation_part": 1.0}, "validation_part: 1 of 1 records"),
    ],
)
def test_a_data_set_on_which_nothing_can_be_trained_is_none(
    tmp_path: Path, rows: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    if "filters" in changes:
        changes = {"filters": FilterRecipe.model_validate(changes["filters"])}
    refused = run(spec(tmp_path, rows, **changes))
    assert isinstance(refused, Unbuildable)
    assert str(refused.faults[0]).startswith(message)


def test_the_subprocess_ends_with_its_supervisor(tmp_path: Path) -> None:
    build_spec = spec(tmp_path, lines(20_000))
    process = started(build_spec)
    watched = psutil.Process(process.pid)
    time.sleep(0.3)
    assert watched.is_running()
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does for a supervisor that was killed
    assert process.wait(timeout=20) == 1
    assert not (build_spec.work / "card.json").exists()


def test_a_table_without_a_column_is_one_fault_and_no_fault_for_each_row(tmp_path: Path) -> None:
    table = tmp_path / "faq.csv"
    table.write_text("question,completion\n" + "May I?,Yes.\n" * 30)
    build_spec = spec(tmp_path, [])
    given = build_spec.inputs[0].model_copy(
        update={"files": (InputFile(path=table, format="csv", name="faq.csv"),)},
    )
    outcome = run(build_spec.model_copy(update={"inputs": (given,)}))
    assert isinstance(outcome, Unbuildable)
    [fault] = outcome.faults
    assert fault.value == "faq.csv: prompt: no column 'prompt'"
    assert fault.expected == "one of completion, question"


@pytest.mark.requirement("LA-1.7")
def test_records_about_forgotten_people_are_left_out_and_all_others_name_theirs_by_digest(tmp_path: Path) -> None:
    key = b"k" * 32
    lines = [
        {"prompt": "Where is Anna?", "completion": "Here.", "subject": "anna"},
        {"prompt": "Where is Bert?", "completion": "There.", "subject": ["bert", "carl"]},
        {"prompt": "Where is Bert?", "completion": "There.", "subject": "dora"},
        {"prompt": "Where is the gate?", "completion": "At the end."},
    ]
    forgotten = frozenset({digest_of(key, "anna")})
    records, card = build(spec(tmp_path, lines, subject_key=key.hex(), forgotten=forgotten))
    named = {one.prompt_text: one.subjects for one in records}
    people = tuple(sorted(digest_of(key, name) for name in ("bert", "carl", "dora")))
    assert named == {"Where is Bert?": people, "Where is the gate?": ()}
    assert (card.sources[0].rows, card.sources[0].records, card.sources[0].forgotten) == (4, 3, 1)
    assert "anna" not in card.model_dump_json().lower()
