"""sft learns the answers of a rated data set that were wanted, and says how many were not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from fleet_events import v1
from services.trainer.datasets.columns import Columns
from services.trainer.datasets.records import Kind, Record, prompt_messages
from services.trainer.training.configuration import resolve
from services.trainer.training.objectives.preparation import encoded

pytestmark = pytest.mark.unit


def test_answers_that_ktos_label_calls_unwanted_are_not_learned_by_sft(base_model: Path) -> None:
    rows = [{"prompt": f"{label}?", "completion": "An answer.", "label": label} for label in (True, False)]
    records = [Columns().record(row, Kind.RATED, "test") for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    configuration = resolve("lora", v1.Hyperparameters(), "sft", ("q_proj",))
    found = encoded(tokenizer, records, configuration)
    assert (len(found.rows), found.unwanted) == (1, 1)
    assert "True?" in tokenizer.decode(found.rows[0][0].input_ids)


@pytest.mark.parametrize(("rating", "learned"), [(2.4, 0), (2.5, 1), (5.0, 1)])
def test_an_answer_is_wanted_from_the_middle_of_the_scale_on(base_model: Path, rating: float, learned: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    configuration = resolve("lora", v1.Hyperparameters(), "sft", ("q_proj",))
    record = Record(Kind.RATED, prompt_messages("One?"), ("Yes.",), rating)
    assert len(encoded(tokenizer, [record], configuration).rows) == learned
    sample = replace(record, kind=Kind.COMPLETION)
    assert len(encoded(tokenizer, [sample], configuration).rows) == 1
