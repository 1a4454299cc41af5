"""Live answers of rollouts: which are judged, and what the judge is shown."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_events.v1 import (
    BaseModel,
    Consent,
    GenerationRecorded,
    PersonalDataAction,
    RecordAnswers,
    RolloutArm,
    RolloutPart,
    Sampling,
    Turn,
)
from services.evaluator.golden.samples import Turn as Earlier
from services.evaluator.judging import live_question, llm_question
from services.evaluator.judging.criteria import Criterion
from services.evaluator.live.answer import drawn, sample_of

CONSENT = Consent(record_answers=RecordAnswers.ALL, personal_data=PersonalDataAction.MASK, revision=1)


def recorded(name: str = "gen-1", share: float = 1.0, *turns: tuple[str, str], **changes: Any) -> GenerationRecorded:
    fields: dict[str, Any] = {
        "generation_id": name,
        "domain": "shop",
        "adapter_id": "shop-lora-v1.0.0",
        "base_model": BaseModel(name="tiny", revision="0" * 64),
        "sampling": Sampling(),
        "messages": tuple(Turn(role=role, content=text) for role, text in turns),
        "answer": "At nine.",
        "consent": CONSENT,
        "rollout": RolloutPart(rollout_id="v1.2", step=1, arm=RolloutArm.CANDIDATE, judge_share=share),
    }
    return GenerationRecorded(**fields | changes)


def test_the_share_of_a_rollouts_answers_is_drawn_and_always_the_same_ones() -> None:
    names = [f"gen-{number}" for number in range(4000)]
    one, other = ({name for name in names if drawn(recorded(name, share))} for share in (0.1, 0.4))
    assert one < other
    assert len(one) / len(names) == pytest.approx(0.1, abs=0.02)
    assert len(other) / len(names) == pytest.approx(0.4, abs=0.03)
    assert one == {name for name in names if drawn(recorded(name, 0.1))}
    assert all(drawn(recorded(name)) for name in names)


def test_an_answer_outside_rollouts_or_shown_to_nobody_or_of_the_base_model_is_not_drawn() -> None:
    shadow = RolloutPart(rollout_id="v1.2", step=0, arm=RolloutArm.CANDIDATE, judge_share=1.0, shadow=True)
    assert drawn(recorded(share=0.0)) is None
    assert drawn(recorded(rollout=None)) is None
    assert drawn(recorded(rollout=shadow)) is None
    assert drawn(recorded(adapter_id="")) is None


def test_the_question_is_the_users_last_turn_with_what_follows_it() -> None:
    turns = (
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hello."),
        ("tool", "open"),
        ("user", "When do you open?"),
        ("assistant", "hours()"),
        ("tool", "9-18"),
    )
    found = sample_of(recorded("gen-1", 1.0, *turns))
    assert (found.system, found.expected_output, found.sample_id) == ("Be brief.", "", "gen-1")
    assert found.prompt == "When do you open?\n\nassistant: hours()\n\ntool: 9-18"
    assert found.history == (Earlier("user", "Hello"), Earlier("assistant", "Hello."), Earlier("user", "(tool) open"))
    assert sample_of(recorded("gen-1", 1.0, ("assistant", "Once upon"))).prompt == "Once upon"


def test_a_judge_of_live_answers_is_told_that_there_is_no_reference_and_asked_for_the_same_verdict() -> None:
    found = sample_of(recorded("gen-1", 1.0, ("system", "Be brief."), ("user", "When do you open?")))
    asked = live_question.ask(found, found.prompt, "At nine.")
    assert "no reference answer" in asked.system
    assert "REFERENCE ANSWER" not in asked.user
    for text in ("Be brief.", "When do you open?", "At nine.", f"CANARY: {asked.canary}"):
        assert text in asked.user
    assert set(asked.schema["properties"]) == {*map(str, Criterion), "canary"}  # type: ignore[call-overload]
    assert live_question.PROMPT_SHA256 != llm_question.PROMPT_SHA256
