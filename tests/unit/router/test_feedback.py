"""What the router keeps a recorded answer by."""

import pytest

from fleet_events import v1
from services.router.feedback import query_of


def conversation(*turns: tuple[str, str]) -> list[v1.Turn]:
    return [v1.Turn(role=role, content=text) for role, text in turns]


@pytest.mark.requirement("LI-4.2")
def test_an_answer_is_kept_by_its_last_user_turn() -> None:
    turns = (("system", "Be brief."), ("user", "first"), ("assistant", "ok"), ("user", " last "), ("tool", "42"))
    assert query_of(conversation(*turns)) == "last"


def test_what_has_no_text_of_a_user_is_not_kept() -> None:
    assert query_of(conversation(("system", "Be brief."))) == ""
    assert query_of(conversation()) == ""
