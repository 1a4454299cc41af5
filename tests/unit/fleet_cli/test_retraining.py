"""What `lorafleet retraining` sends and shows, and what `lorafleet demo-loop` reads and counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_cli.loop_story import Figures, Story
from fleet_events.v1 import Hyperparameters
from lorafleet.responses import JudgedSample
from services.trainer.retraining.rules import RetrainingRules
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
RULES = {"enabled": True, "new_samples": {"at_least": 5}, "budget": {"jobs_a_day": 1, "steps_a_day": None}}


def test_rules_that_are_not_named_stay_and_names_reach_inside(against: Lorafleet, service: Scripted) -> None:
    held = {"domain": "tax", "rules": RULES, "set_by": "ann", "set_at": "2026-01-01T00:00:00Z"}
    service.answer("GET /v1/retraining/tax", held)
    service.answer("PUT /v1/retraining/tax", held)
    changes = ("budget.jobs_a_day=3", "schedule=daily 03:00", "drift.between_false_alarms=500")
    assert against("retraining", "set", "tax", *changes).exit_code == 0
    assert service.requests[-1].json == {
        **RULES,
        "budget": {"jobs_a_day": 3, "steps_a_day": None},
        "schedule": "daily 03:00",
        "drift": {"between_false_alarms": 500},
    }
    assert "at_least: 5" in against("retraining", "show", "tax").stdout
    assert against("retraining", "set", "tax").exit_code == 2


def test_the_first_rules_of_a_domain_are_on(against: Lorafleet, service: Scripted) -> None:
    service.answer("GET /v1/retraining/tax", {"domain": "tax", "rules": {**RULES, "enabled": False}, "set_by": ""})
    service.answer("PUT /v1/retraining/tax", {"domain": "tax", "rules": RULES})
    assert against("retraining", "set", "tax", "new_base_model=true").exit_code == 0
    assert service.requests[-1].json == {**RULES, "new_base_model": True}


def test_a_file_replaces_all_rules(against: Lorafleet, service: Scripted, tmp_path: Path) -> None:
    service.answer("PUT /v1/retraining/tax", {"domain": "tax", "rules": RULES})
    (tmp_path / "rules.json").write_text('{"new_base_model": true}')
    assert against("retraining", "set", "tax", "--file", str(tmp_path / "rules.json")).exit_code == 0
    assert [one.method for one in service.requests] == ["PUT"]
    assert service.requests[-1].json == {"new_base_model": True}
    (tmp_path / "rules.yaml").write_text("new_base_model: true\n")
    assert against("retraining", "set", "tax", "--file", str(tmp_path / "rules.yaml")).exit_code == 0
    assert service.requests[-1].json == {"new_base_model": True}
    (tmp_path / "rules.json").write_text("[]")
    assert against("retraining", "set", "tax", "--file", str(tmp_path / "rules.json")).exit_code == 2


def test_firings_and_what_was_held_back_are_two_tables(against: Lorafleet, service: Scripted) -> None:
    service.answer("GET /v1/retraining", {"rules": [{"domain": "tax", "rules": RULES, "set_by": "ann"}]})
    assert "new_samples" in against("retraining", "list").stdout
    fired = {"job_id": "retrain-tax-1", "triggers": ["drift"], "reason": "far away", "state": "queued"}
    held = {"trigger": "schedule", "why": "budget", "detail": "1 jobs within 24 hours", "times": 7}
    service.answer("GET /v1/retraining/tax/firings", {"firings": [fired], "suppressed": [held]})
    shown = against("retraining", "firings", "tax").stdout
    assert all(text in shown for text in ("retrain-tax-1", "far away", "budget", "1 jobs within 24 hours"))


def test_the_demos_gap_is_in_its_users_questions_and_in_no_training_sample() -> None:
    story = Story.read(EXAMPLES / "demo-loop", EXAMPLES / "demo")
    gap = {right for _, right in story.questions}
    assert (len(gap), len(story.questions), len(story.golden_gap)) == (9, 72, 12)
    assert gap == {one["expected_output"] for one in story.golden_gap}
    assert not gap & {one["completion"] for one in story.known}
    assert not gap & {one["expected_output"] for one in story.golden_known}
    assert not {question for question, _ in story.questions} & {one["prompt"] for one in story.golden_gap}
    Hyperparameters.model_validate(dict(story.first))
    rules = RetrainingRules.model_validate(dict(story.rules))
    assert rules.new_samples is not None
    assert rules.new_samples.at_least <= len(story.questions)
    rules.request(story.domain)


def test_figures_pair_the_samples_of_two_versions() -> None:
    def judged(**scores: float | None) -> list[JudgedSample]:
        return [JudgedSample(sample_id=name, overall=one, passed=(one or 0) >= 70) for name, one in scores.items()]

    before, after = judged(a=20, b=80, c=50, d=None), judged(a=90, b=80, c=40, d=70)
    found = Figures.of("abcd", before, after)
    assert (found.samples, found.before, found.after) == (3, 50, 70)
    assert (found.passed_before, found.passed_after, found.win_rate) == (1, 2, 0.5)
    with pytest.raises(ValueError, match="no sample"):
        Figures.of("d", before, after)
