"""The job's state machine, by properties: whatever order things come in, a job ends once and says so once."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events import v1
from services.trainer.jobs import domain
from services.trainer.jobs.domain import MAX_STALLED, InvalidTransition, Job, JobState

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = v1.BaseModel(name="base", revision="0" * 64)
DATASET = v1.Dataset(
    dataset_id="a" * 64, blob=v1.Blob(uri="s3://lorafleet/trainer/datasets/a", sha256="a" * 64, bytes=1), samples=3
)
BLOB = DATASET.blob


def queued() -> Job:
    return domain.queue(v1.TrainingRequested(domain="shop"), "job-1", NOW)


def running() -> Job:
    return domain.settle_inputs(domain.take_up(queued(), NOW), DATASET.dataset_id, BASE)


def completed(job: Job) -> v1.TrainingCompleted:
    return v1.TrainingCompleted(
        job_id=job.job_id,
        domain=job.domain,
        method="lora",
        base_model=BASE,
        dataset=DATASET,
        configuration="{}",
        configuration_sha256="0" * 64,
        checkpoint=BLOB,
        checkpoint_config=BLOB,
        artifact=v1.Artifact(blob=BLOB, rank=4, alpha=8),
        report=BLOB,
    )


STEPS = {
    "take_up": lambda job: (domain.take_up(job, NOW), None),
    "settle": lambda job: (domain.settle_inputs(job, DATASET.dataset_id, BASE), None),
    "begin": lambda job: domain.begin(job, DATASET, 10, 0),
    "advance": lambda job: (domain.advance(job, 3, 0.5), None),
    "checkpoint": lambda job: (domain.keep_checkpoint(job), None),
    "succeed": lambda job: (domain.succeed(job, completed(job), NOW), completed(job)),
    "fail": lambda job: domain.fail(job, "broken", NOW),
    "ask_to_cancel": lambda job: domain.ask_to_cancel(job, "anna", "", NOW),
    "cancel": lambda job: domain.cancel(job, NOW),
    "crash": lambda job: (domain.crash(job, "killed", NOW), None),
    "ask_to_pause": lambda job: domain.ask_to_pause(job, "anna", "", NOW),
    "pause": lambda job: domain.pause(job, NOW),
    "resume": domain.resume,
}
ENDS = (v1.TrainingCompleted, v1.TrainingFailed, v1.TrainingCancelled)


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_a_job_ends_at_most_once_and_nothing_changes_it_afterwards(names: list[str]) -> None:
    job, ended = queued(), []
    for name in names:
        before = job
        try:
            job, event = STEPS[name](job)
        except InvalidTransition as refused:
            assert job.job_id in str(refused)
            continue
        assert not before.state.final
        assert job.job_id == before.job_id
        assert job.request == before.request
        if isinstance(event, ENDS):
            ended.append(event)
    assert len(ended) == int(job.state.final)
    assert (job.finished_at is not None) == job.state.final
    assert (job.state is JobState.SUCCEEDED) == (job.completed is not None)


AGAIN = {**STEPS, "retry": domain.retry}


@given(st.lists(st.sampled_from(sorted(AGAIN)), max_size=40))
@pytest.mark.requirement("TP-1.3")
def test_every_attempt_is_in_the_history_and_open_only_while_a_worker_has_the_job(names: list[str]) -> None:
    job, taken, pauses, paused = queued(), 0, 0, 0
    for name in names:
        before = job
        try:
            job, event = AGAIN[name](job)
        except InvalidTransition:
            continue
        taken += name == "take_up"
        paused += isinstance(event, v1.TrainingPaused)
        pauses += before.state is not JobState.PAUSED and job.state is JobState.PAUSED
        assert before.history[:-1] == job.history[: len(before.history) - 1], "what has ended is never written anew"
        if before.state.final and job.state is not before.state:
            assert (name, job.state, job.error) == ("retry", JobState.QUEUED, "")
        if job.state is JobState.PAUSED:
            assert job.pause_by
    numbers = [one.number for one in job.history if one.worker or one.outcome is None or one.number]
    assert sorted(numbers) == numbers
    assert job.attempts == taken
    assert {one.number for one in job.history} >= set(range(1, taken + 1))
    assert all(one.ended_at for one in job.history[:-1])
    open_ones = [one for one in job.history if one.ended_at is None]
    assert not open_ones or job.state is JobState.RUNNING
    assert all((one.ended_at is None) == (one.outcome is None) for one in job.history)
    assert paused == pauses
    if job.state.final:
        assert job.history[-1].outcome == job.state.value


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_data_and_base_model_are_chosen_once(names: list[str]) -> None:
    job = queued()
    for name in names:
        before = job
        try:
            job, _ = STEPS[name](job)
        except InvalidTransition:
            continue
        assert before.dataset_id in (None, job.dataset_id)
        assert before.base in (None, job.base)


def test_a_resumed_job_refuses_other_data_and_other_weights() -> None:
    with pytest.raises(InvalidTransition, match="data set"):
        domain.settle_inputs(running(), "b" * 64, BASE)
    with pytest.raises(InvalidTransition, match="base model"):
        domain.settle_inputs(running(), DATASET.dataset_id, BASE.model_copy(update={"revision": "1" * 64}))


def test_a_job_that_only_ever_crashes_is_exhausted_and_a_checkpoint_gives_it_new_attempts() -> None:
    job = queued()
    for _ in range(MAX_STALLED):
        assert not domain.exhausted(job)
        job = domain.take_up(job, NOW)
    assert domain.exhausted(job)
    assert not domain.exhausted(domain.keep_checkpoint(job))


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_when_its_worker_stops() -> None:
    ended, event = domain.ask_to_cancel(queued(), "anna", "typo", NOW)
    assert ended.state is JobState.CANCELLED
    assert event == v1.TrainingCancelled(job_id="job-1", domain="shop", by="anna", reason="typo")
    requested, nothing = domain.ask_to_cancel(running(), "anna", "typo", NOW)
    assert (requested.state, nothing) == (JobState.RUNNING, None)
    assert domain.cancel(requested, NOW)[0].state is JobState.CANCELLED


def test_a_running_job_is_not_cancelled_unless_somebody_asked() -> None:
    with pytest.raises(InvalidTransition):
        domain.cancel(running(), NOW)


def test_the_first_attempt_keeps_its_start_time_over_later_ones() -> None:
    later = domain.take_up(domain.take_up(queued(), NOW), NOW.replace(year=2027))
    assert later.started_at == NOW
    assert later.attempts == 2


def test_a_waiting_job_is_paused_at_once_and_a_running_one_when_its_worker_stops() -> None:
    paused, event = domain.ask_to_pause(queued(), "anna", "night", NOW)
    assert paused.state is JobState.PAUSED
    assert event == v1.TrainingPaused(job_id="job-1", domain="shop", by="anna", reason="night")
    requested, nothing = domain.ask_to_pause(domain.advance(running(), 3, 0.5), "anna", "night", NOW)
    assert (requested.state, nothing) == (JobState.RUNNING, None)
    resting, event = domain.pause(requested, NOW)
    assert (resting.state, event.step) == (JobState.PAUSED, 3)
    assert resting.history[-1].reason == "paused by anna: night"
    waiting, again = domain.resume(resting)
    assert (waiting.state, waiting.pause_by, again.job_id) == (JobState.QUEUED, "", "job-1")


def test_a_paused_job_is_not_taken_up_and_can_be_cancelled() -> None:
    paused, _ = domain.ask_to_pause(queued(), "anna", "", NOW)
    with pytest.raises(InvalidTransition, match="paused, so it cannot be taken up"):
        domain.take_up(paused, NOW)
    assert domain.ask_to_cancel(paused, "anna", "", NOW)[0].state is JobState.CANCELLED


def test_pausing_does_not_wear_a_job_out() -> None:
    job = queued()
    for _ in range(3 * MAX_STALLED):
        requested, _ = domain.ask_to_pause(domain.take_up(job, NOW), "anna", "", NOW)
        job, _ = domain.resume(domain.pause(requested, NOW)[0])
        assert not domain.exhausted(job)


def test_a_retried_job_begins_again_and_remembers_why_it_ended() -> None:
    failed, _ = domain.fail(domain.take_up(queued(), NOW, "worker-1"), "out of memory", NOW)
    waiting, event = domain.retry(failed)
    assert (waiting.state, waiting.error, waiting.finished_at, waiting.stalled) == (JobState.QUEUED, "", None, 0)
    assert event.job_id == "job-1"
    (first,) = waiting.history
    assert (first.number, first.worker, first.outcome, first.reason) == (1, "worker-1", "failed", "out of memory")
    with pytest.raises(InvalidTransition, match="cannot be retried"):
        domain.retry(waiting)


def test_a_job_refused_before_any_worker_had_it_says_so_in_its_history() -> None:
    failed, _ = domain.fail(queued(), "rank: too high", NOW)
    assert [(one.number, one.reason) for one in failed.history] == [(0, "rank: too high")]


def test_a_worker_that_is_taken_over_from_is_written_off() -> None:
    later = domain.take_up(domain.take_up(queued(), NOW, "one"), NOW.replace(year=2027), "two")
    assert [(one.worker, one.outcome) for one in later.history] == [("one", "lost"), ("two", None)]


def test_the_layers_that_a_job_adapts_by_default_are_fixed_when_it_is_accepted() -> None:
    request = v1.TrainingRequested(domain="shop", hyperparameters=v1.Hyperparameters(rank=4))
    job = domain.settle_start(domain.queue(request, "job-1", NOW), None, ("qkv_proj", "o_proj"))
    assert job.configuration.target_modules == ("o_proj", "qkv_proj")
    assert domain.settle_start(job, None, ("c_attn",)).targets == ("qkv_proj", "o_proj")
    requested = request.model_copy(update={"hyperparameters": v1.Hyperparameters(target_modules=("o_proj",))})
    job = domain.settle_start(domain.queue(requested, "job-2", NOW), None, ("qkv_proj",))
    assert job.configuration.target_modules == ("o_proj",)
