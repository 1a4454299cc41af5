"""What the router keeps a recorded answer by."""

import pytest

from fleet_events import v1
from services.router.feedback import query_of


def recorded(*turns: tuple[str, str], routed: str = "nearest") -> v1.GenerationRecorded:
    return v1.GenerationRecorded(
        generation_id="gen-x",
        domain="shop",
        routed=routed,
        base_model=v1.BaseModel(name="tiny", revision="0" * 64),
        sampling=v1.Sampling(),
        messages=tuple(v1.Turn(role=role, content=text) for role, text in turns),
        answer="yes",
        consent=v1.Consent(record_answers=v1.RecordAnswers.ALL, personal_data=v1.PersonalDataAction.MASK, revision=1),
    )


@pytest.mark.requirement("LI-4.2")
def test_an_answer_is_kept_by_its_last_user_turn() -> None:
    turns = (("system", "Be brief."), ("user", "first"), ("assistant", "ok"), ("user", " last "), ("tool", "42"))
    assert query_of(recorded(*turns)) == "last"


def test_what_auto_did_not_route_and_what_has_no_text_is_not_kept() -> None:
    assert query_of(recorded(("user", "last"), routed="")) == ""
    assert query_of(recorded(("system", "Be brief."))) == ""
    assert query_of(recorded()) == ""
