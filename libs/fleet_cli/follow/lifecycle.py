"""The five steps of one adapter's life as a state machine: `advance(loop, happened) -> loop`. Pure.

data → train → register → evaluate → approve (lifecycle-automation.md). What happens comes from the bus as events,
and as a few observations beside them: the progress of a training or an evaluation, a dead letter of this loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from fleet_events import Event, v1
from lorafleet.errors import ExitCode


class Step(IntEnum):
    """The steps in their order."""

    DATA = 1
    TRAIN = 2
    REGISTER = 3
    EVALUATE = 4
    APPROVE = 5


class StepState(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Outcome(StrEnum):
    """How the loop ended."""

    APPROVED = "approved"
    ACTIVE = "active"
    PENDING_REVIEW = "pending_review"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        match self:
            case Outcome.APPROVED | Outcome.ACTIVE:
                return ExitCode.OK
            case Outcome.PENDING_REVIEW:
                return ExitCode.PENDING_REVIEW
            case Outcome.REJECTED | Outcome.FAILED:
                return ExitCode.REJECTED


Fact = str | int | float | bool | None


@dataclass(frozen=True)
class Progress:
    """One step: its state, how far it is (`done` of `total`, 0 of 0 when unknown), and what it found."""

    state: StepState = StepState.WAITING
    done: int = 0
    total: int = 0
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingProgress:
    """A training has taken `done` of `total` steps; `numbers` are the newest, by name (see `job_progress`)."""

    job_id: str
    done: int
    total: int
    numbers: Mapping[str, Fact]


@dataclass(frozen=True)
class EvaluationProgress:
    """An evaluation under way has judged `done` of `total` samples."""

    adapter_id: str
    done: int
    total: int


@dataclass(frozen=True)
class DeadLettered:
    """A service gave up on an event; it lies in the dead letters with its reason."""

    event: Event
    durable: str
    reason: str


Happened = Event | TrainingProgress | EvaluationProgress | DeadLettered


@dataclass(frozen=True)
class Loop:
    """One request and how far it has come. `steps` always holds all five."""

    request: v1.TrainingRequested
    steps: Mapping[Step, Progress] = field(default_factory=lambda: {step: Progress() for step in Step})
    adapter_id: str = ""
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def job_id(self) -> str:
        """The job that this loop follows."""
        return self.request.job_id


def begin(request: v1.TrainingRequested) -> Loop:
    """A loop whose request (with its job id) has been accepted."""
    return _step(Loop(request), Step.DATA, StepState.RUNNING)


def advance(loop: Loop, happened: Happened) -> Loop:  # noqa: PLR0911 - one line an event
    """The loop after an event; the same loop where the event is of another job, old or repeated."""
    if loop.outcome in (Outcome.ACTIVE, Outcome.REJECTED, Outcome.FAILED):
        return loop
    match happened:
        case v1.TrainingStarted(job_id=loop.job_id):
            return _started(loop, happened)
        case v1.TrainingProgressed(job_id=loop.job_id):
            return _progressed(loop, happened.step, happened.total_steps, {"loss": happened.loss})
        case TrainingProgress(job_id=loop.job_id):
            return _progressed(loop, happened.done, happened.total, happened.numbers)
        case v1.TrainingCompleted(job_id=loop.job_id):
            return _trained(loop, happened)
        case v1.TrainingFailed(job_id=loop.job_id):
            return _end(loop, Step.TRAIN, Outcome.FAILED, f"training failed: {happened.reason}")
        case v1.TrainingCancelled(job_id=loop.job_id):
            by = f" by {happened.by}" if happened.by else ""
            why = f": {happened.reason}" if happened.reason else ""
            return _end(loop, Step.TRAIN, Outcome.FAILED, f"training was cancelled{by}{why}")
        case v1.AdapterRegistered(job_id=loop.job_id):
            return _registered(loop, happened)
        case DeadLettered() if _concerns(happened.event, loop):
            reason = f"{happened.durable} gave up on {type(happened.event).__name__}: {happened.reason}"
            return _end(loop, _current(loop), Outcome.FAILED, reason)
        case _ if loop.adapter_id:
            return _judged(loop, happened)
    return loop


def _judged(loop: Loop, happened: Happened) -> Loop:  # noqa: PLR0911 - one line an event
    """What happens to the registered version."""
    match happened:
        case EvaluationProgress(adapter_id=loop.adapter_id):
            if loop.steps[Step.EVALUATE].state is not StepState.RUNNING:
                return loop
            return _step(loop, Step.EVALUATE, StepState.RUNNING, done=happened.done, total=happened.total)
        case v1.EvaluationScored(adapter_id=loop.adapter_id):
            return _scored(loop, happened)
        case v1.EvaluationFailed(adapter_id=loop.adapter_id):
            return _end(loop, Step.EVALUATE, Outcome.FAILED, f"evaluation failed: {happened.reason}")
        case v1.Approved(adapter_id=loop.adapter_id):
            return _end(loop, Step.APPROVE, Outcome.APPROVED, happened.reason, by=happened.by)
        case v1.ReviewRequested(adapter_id=loop.adapter_id) if loop.outcome is None:
            return _end(loop, Step.APPROVE, Outcome.PENDING_REVIEW, happened.reason)
        case v1.Rejected(adapter_id=loop.adapter_id):
            return _end(loop, Step.APPROVE, Outcome.REJECTED, happened.reason, by=happened.by)
        case v1.AdapterActivated() if happened.adapter.adapter_id == loop.adapter_id:
            reason = loop.reason or happened.reason
            return _end(loop, Step.APPROVE, Outcome.ACTIVE, reason, replaces=happened.replaces or None)
    return loop


def _started(loop: Loop, event: v1.TrainingStarted) -> Loop:
    if loop.steps[Step.TRAIN].state is StepState.DONE:
        return loop
    loop = _with_data(loop, event.dataset)
    return _step(
        loop,
        Step.TRAIN,
        StepState.RUNNING,
        done=event.resumed_step,
        total=event.total_steps,
        base_model=event.base_model.name,
        attempt=event.attempt,
        resumed_step=event.resumed_step,
    )


def _with_data(loop: Loop, data: v1.Dataset) -> Loop:
    return _finish(loop, Step.DATA, samples=data.samples, dataset_id=data.dataset_id, sha256=data.blob.sha256)


def _progressed(loop: Loop, done: int, total: int, numbers: Mapping[str, Fact]) -> Loop:
    now = loop.steps[Step.TRAIN]
    if now.state is StepState.DONE or (now.state is StepState.RUNNING and done <= now.done):
        return loop
    return _step(loop, Step.TRAIN, StepState.RUNNING, done=done, total=total, **numbers)


def _trained(loop: Loop, event: v1.TrainingCompleted) -> Loop:
    if loop.steps[Step.TRAIN].state is StepState.DONE:
        return loop
    loop = _with_data(loop, event.dataset)
    loop = _finish(
        loop,
        Step.TRAIN,
        **{name: round(value, 6) for name, value in sorted(event.metrics.items())},
        checkpoint=event.checkpoint.uri,
        artifact_sha256=event.artifact.blob.sha256,
    )
    return _step(loop, Step.REGISTER, StepState.RUNNING)


def _registered(loop: Loop, event: v1.AdapterRegistered) -> Loop:
    if loop.steps[Step.REGISTER].state is StepState.DONE:
        return loop
    adapter = event.adapter
    loop = _finish(replace(loop, adapter_id=adapter.adapter_id), Step.DATA)
    loop = _finish(loop, Step.TRAIN)
    loop = _finish(
        loop,
        Step.REGISTER,
        adapter_id=adapter.adapter_id,
        version=adapter.version,
        artifact_sha256=adapter.artifact.blob.sha256,
    )
    return _step(loop, Step.EVALUATE, StepState.RUNNING)


def _scored(loop: Loop, event: v1.EvaluationScored) -> Loop:
    if loop.steps[Step.EVALUATE].state is StepState.DONE:
        return loop
    loop = _finish(
        loop,
        Step.EVALUATE,
        score=event.score,
        ci_low=event.ci_low,
        ci_high=event.ci_high,
        confidence=event.confidence,
        pass_rate=event.pass_rate,
        passed=event.passed,
        samples=event.samples,
        judge=event.judge,
        evaluation_id=event.evaluation_id,
        golden_dataset_id=event.golden_dataset_id,
        regression=event.regression,
    )
    if loop.steps[Step.APPROVE].state is not StepState.WAITING:
        return loop
    return _step(loop, Step.APPROVE, StepState.RUNNING)


def _end(loop: Loop, step: Step, outcome: Outcome, reason: str, **facts: Fact) -> Loop:
    """The loop's end at a step; a later step's end implies the earlier ones', never the other way round."""
    failed = outcome is Outcome.FAILED
    if not failed:
        for earlier in Step:
            if earlier < step:
                loop = _finish(loop, earlier)
    state = StepState.FAILED if failed else StepState.DONE
    now = loop.steps[step]
    found = {**now.facts, **facts, "outcome": outcome.value, "reason": reason}
    loop = _set(loop, step, replace(now, state=state, facts=found))
    return replace(loop, outcome=outcome, reason=reason)


def _finish(loop: Loop, step: Step, **facts: Fact) -> Loop:
    now = loop.steps[step]
    if now.state is StepState.DONE and not facts:
        return loop
    return _set(loop, step, replace(now, state=StepState.DONE, done=now.total, facts={**now.facts, **facts}))


def _step(
    loop: Loop, step: Step, state: StepState, *, done: int | None = None, total: int | None = None, **facts: Fact
) -> Loop:
    now = loop.steps[step]
    then = Progress(
        state=state,
        done=now.done if done is None else done,
        total=now.total if total is None else total,
        facts={**now.facts, **facts},
    )
    return _set(loop, step, then)


def _set(loop: Loop, step: Step, progress: Progress) -> Loop:
    return replace(loop, steps={**loop.steps, step: progress})


def _current(loop: Loop) -> Step:
    """The step under way: the first that is not done."""
    return next((step for step in Step if loop.steps[step].state is not StepState.DONE), Step.APPROVE)


def _concerns(event: Event, loop: Loop) -> bool:
    """Whether losing this event stops this loop: events that only count or show something do not."""
    match event:
        case v1.TrainingRequested() | v1.TrainingCompleted() | v1.AdapterRegistered():
            return event.job_id == loop.job_id
        case v1.EvaluationScored():
            return bool(loop.adapter_id) and event.adapter_id == loop.adapter_id
    return False
