"""A chat template that cannot render a job's data is known before the job is queued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.trainer.jobs.template_check import TemplateCheck

pytestmark = pytest.mark.unit

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TURNS
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ONE_QUESTION = "{% if messages | length > 2 %}{{ raise_exception('one question at a time') }}{% endif %}" + TURNS


def check(folder: Path, template: str | None) -> TemplateCheck:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "</s>"}))
    return TemplateCheck.of(folder)


@pytest.mark.parametrize("template", [TURNS, None])
def test_a_template_that_renders_everything_or_none_at_all_gives_no_fault_and_no_warning(
    tmp_path: Path, template: str | None
) -> None:
    found = check(tmp_path, template)
    assert found == TemplateCheck()
    assert (list(found.faults("base", "d1", "conversation")), found.warnings) == ([], ())


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('this model only completes') }}", "this model only completes"),
        ("{% for m in messages", "unexpected"),
        ("{% for m in messages %}<{{ m.role }}>{% endfor %}", "it leaves the text of a message out"),
    ],
)
def test_a_template_that_renders_no_question_is_refused_for_every_job(tmp_path: Path, template: str, why: str) -> None:
    [fault] = check(tmp_path, template).faults("base", "", "")
    assert (fault.field, fault.value) == ("base_model", "base")
    assert why in fault.expected


def test_a_template_of_single_questions_is_refused_for_conversations_alone(tmp_path: Path) -> None:
    found = check(tmp_path, ONE_QUESTION)
    assert list(found.faults("base", "d1", "completion")) == []
    [fault] = found.faults("base", "d1", "conversation")
    assert (fault.field, fault.value) == ("dataset_id", "d1")
    assert "one question at a time" in fault.expected


@pytest.mark.parametrize(("template", "word"), [(DROPS_SYSTEM, "drops"), (REFUSES_SYSTEM, "refuses")])
def test_a_template_without_system_messages_is_reported(tmp_path: Path, template: str, word: str) -> None:
    found = check(tmp_path, template)
    assert list(found.faults("base", "d1", "completion")) == []
    [warning] = found.warnings
    assert f"chat template {word} system messages" in warning
