"""Answers that wait for feedback: for a time, up to a size, as long as their domain's policy permits."""

from fleet_events.v1 import BaseModel, Consent, GenerationRecorded, PersonalDataAction, RecordAnswers, Sampling, Turn
from services.inference.recording.exchange import PendingAnswer
from services.inference.recording.rated import HeldForFeedback


def answer(name: str, characters: int = 10, domain: str = "tax") -> PendingAnswer:
    event = GenerationRecorded(
        generation_id=name,
        domain=domain,
        base_model=BaseModel(name="m", revision="0" * 64),
        sampling=Sampling(),
        messages=(Turn(role="user", content="x" * (characters - 4)),),
        answer="four",
        consent=Consent(record_answers=RecordAnswers.RATED, personal_data=PersonalDataAction.MASK),
    )
    return PendingAnswer(event, frozenset({domain}))


def test_the_oldest_leave_when_there_is_no_room() -> None:
    held = HeldForFeedback(25, 60)
    for name in "abc":
        held.hold(answer(name))
    assert [held.find(name) is not None for name in "abc"] == [False, True, True]
    held.hold(answer("d", 26))
    assert held.find("d") is None
    assert len(held) == 2


def test_they_leave_with_time() -> None:
    now = [0.0]
    held = HeldForFeedback(1000, 60, lambda: now[0])
    held.hold(answer("a"))
    now[0] = 60.5
    held.hold(answer("b"))
    assert (held.find("a"), len(held)) == (None, 1)


def test_one_that_is_taken_gives_its_room_back() -> None:
    held = HeldForFeedback(20, 60)
    held.hold(answer("a"))
    held.hold(answer("b"))
    held.taken("a")
    held.taken("a")
    held.hold(answer("c"))
    assert [held.find(name) is not None for name in "abc"] == [False, True, True]


def test_those_of_a_withdrawn_policy_leave() -> None:
    held = HeldForFeedback(100, 60)
    held.hold(answer("a"))
    held.hold(answer("b", domain="law"))
    held.withdraw(lambda one: one.event.domain != "tax")
    assert [held.find(name) is not None for name in "ab"] == [False, True]
