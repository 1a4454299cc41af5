"""The five steps follow from recorded events alone, whatever else happens on the bus and however often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_cli.follow.lifecycle import (
    DeadLettered,
    EvaluationProgress,
    Happened,
    Loop,
    Outcome,
    Step,
    StepState,
    advance,
    begin,
)
from fleet_events import v1
from lorafleet.errors import ExitCode
from tests.unit.fleet_cli.recorded import (
    ACTIVATED,
    ADAPTER_ID,
    APPROVED,
    COMPLETED,
    EVERYTHING,
    REGISTERED,
    REJECTED,
    REQUEST,
    REVIEW,
    SCORED,
    STARTED,
    TO_SCORE,
    progressed,
)


def after(*happened: Happened) -> Loop:
    loop = begin(REQUEST)
    for one in happened:
        loop = advance(loop, one)
    return loop


def states(loop: Loop) -> list[str]:
    return [loop.steps[step].state.value for step in Step]


@pytest.mark.requirement("LA-4.1")
@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ([], ["running", "waiting", "waiting", "waiting", "waiting"]),
        ([STARTED], ["done", "running", "waiting", "waiting", "waiting"]),
        ([STARTED, COMPLETED], ["done", "done", "running", "waiting", "waiting"]),
        ([STARTED, COMPLETED, REGISTERED], ["done", "done", "done", "running", "waiting"]),
        (TO_SCORE, ["done", "done", "done", "done", "running"]),
        ([*TO_SCORE, APPROVED], ["done"] * 5),
    ],
)
def test_each_event_ends_its_step_and_begins_the_next(happened: list[Happened], expected: list[str]) -> None:
    assert states(after(*happened)) == expected


@pytest.mark.parametrize(
    ("happened", "outcome", "code"),
    [
        ([*TO_SCORE, APPROVED], Outcome.APPROVED, ExitCode.OK),
        ([*TO_SCORE, APPROVED, ACTIVATED], Outcome.ACTIVE, ExitCode.OK),
        ([*TO_SCORE, REVIEW], Outcome.PENDING_REVIEW, ExitCode.PENDING_REVIEW),
        ([*TO_SCORE, REVIEW, APPROVED], Outcome.APPROVED, ExitCode.OK),
        ([*TO_SCORE, REJECTED], Outcome.REJECTED, ExitCode.REJECTED),
        ([v1.TrainingFailed(job_id="job-1", reason="no samples")], Outcome.FAILED, ExitCode.REJECTED),
        ([STARTED, v1.TrainingCancelled(job_id="job-1", by="ann")], Outcome.FAILED, ExitCode.REJECTED),
        (
            [STARTED, COMPLETED, REGISTERED, v1.EvaluationFailed(evaluation_id="e", adapter_id=ADAPTER_ID, reason="x")],
            Outcome.FAILED,
            ExitCode.REJECTED,
        ),
    ],
)
def test_the_outcome_decides_the_exit_code(happened: list[Happened], outcome: Outcome, code: ExitCode) -> None:
    loop = after(*happened)
    assert loop.outcome is outcome
    assert loop.outcome.exit_code is code


def test_a_failed_training_keeps_its_reason_and_stays_failed() -> None:
    loop = after(STARTED, v1.TrainingFailed(job_id="job-1", reason="rank: 9999 is refused"), COMPLETED)
    assert loop.reason == "training failed: rank: 9999 is refused"
    assert loop.steps[Step.TRAIN].state is StepState.FAILED
    assert loop.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "foreign",
    [
        progressed(3, job_id="job-2"),
        v1.TrainingFailed(job_id="job-2", reason="other"),
        REGISTERED.model_copy(update={"job_id": "job-2"}),
        SCORED.model_copy(update={"adapter_id": "tax-law-lora-v9.0.0"}),
        REJECTED.model_copy(update={"adapter_id": "tax-law-lora-v9.0.0"}),
        EvaluationProgress("tax-law-lora-v9.0.0", 1, 2),
        DeadLettered(COMPLETED.model_copy(update={"job_id": "job-2"}), "registry-training_completed", "broken"),
        DeadLettered(v1.GenerationCompleted(generation_id="g", base_model="b"), "registry-x", "broken"),
    ],
)
def test_what_happens_to_others_changes_nothing(foreign: Happened) -> None:
    loop = after(STARTED, COMPLETED, REGISTERED)
    assert advance(loop, foreign) is loop


def test_progress_never_goes_back_within_an_attempt_but_a_new_attempt_begins_at_its_checkpoint() -> None:
    loop = after(STARTED, progressed(20), progressed(10))
    assert loop.steps[Step.TRAIN].done == 20
    again = advance(loop, STARTED.model_copy(update={"attempt": 2, "resumed_step": 15}))
    assert (again.steps[Step.TRAIN].done, again.steps[Step.TRAIN].facts["attempt"]) == (15, 2)


def test_an_evaluations_progress_counts_only_while_it_runs() -> None:
    running = after(STARTED, COMPLETED, REGISTERED, EvaluationProgress(ADAPTER_ID, 7, 20))
    assert (running.steps[Step.EVALUATE].done, running.steps[Step.EVALUATE].total) == (7, 20)
    done = advance(running, SCORED)
    assert advance(done, EvaluationProgress(ADAPTER_ID, 8, 20)) is done


def test_a_dead_letter_of_this_loop_ends_it_with_the_reason() -> None:
    loop = after(STARTED, COMPLETED, DeadLettered(COMPLETED, "registry-training_completed", "all-zero delta"))
    assert loop.outcome is Outcome.FAILED
    assert loop.reason == "registry-training_completed gave up on TrainingCompleted: all-zero delta"
    assert loop.steps[Step.REGISTER].state is StepState.FAILED


def test_a_lost_event_is_made_up_for_by_the_next_one() -> None:
    loop = after(COMPLETED, REGISTERED, APPROVED)
    assert loop.outcome is Outcome.APPROVED
    assert states(loop) == ["done"] * 5


@given(st.data())
def test_repeated_and_late_events_end_in_the_same_state(data: st.DataObject) -> None:
    """Every event in its causal order, with any number of earlier ones repeated in between."""
    loop = begin(REQUEST)
    for index, happened in enumerate(EVERYTHING):
        loop = advance(loop, happened)
        for late in data.draw(st.lists(st.sampled_from(EVERYTHING[: index + 1]), max_size=3)):
            loop = advance(loop, late)
    assert loop.outcome is Outcome.ACTIVE
    assert states(loop) == ["done"] * 5
    assert loop.steps[Step.EVALUATE].facts["score"] == 87.5


@given(st.lists(st.sampled_from([*EVERYTHING, REVIEW, REJECTED]), max_size=12))
def test_a_finished_step_is_never_undone(happened: list[Happened]) -> None:
    loop = begin(REQUEST)
    for one in happened:
        then = advance(loop, one)
        for step in Step:
            if loop.steps[step].state is StepState.DONE:
                assert then.steps[step].state is StepState.DONE
        loop = then
