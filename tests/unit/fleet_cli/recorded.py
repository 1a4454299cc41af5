"""The events of one loop and the answers of its services, made by the code that publishes and answers them.

Nothing here is typed by hand that a service computes: a field that is renamed there is missing here, too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from fleet_cli.follow.lifecycle import EvaluationProgress, Happened, TrainingProgress
from fleet_events import Event, v1
from services.evaluator.domain import Evaluation, SampleResult, summarise
from services.evaluator.judging import reference_judge
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.judge import JudgeDescription
from services.evaluator.judging.judgement import Verdict
from services.evaluator.result import scored_event
from services.registry import domain as registry
from services.registry.adapter_view import AdapterView
from services.registry.family import Family
from services.registry.policy import Judgement, Mode, Policy
from services.trainer.jobs import domain as jobs
from services.trainer.jobs.domain import JobState
from services.trainer.jobs.schemas import JobView
from services.trainer.reports.publish import completed_event
from services.trainer.reports.schemas import MetricView, StateView, ValidationView
from services.trainer.runs.attempt import Outcome
from services.trainer.training.protocol import Stepped, Validated
from tests.unit.registry import builders
from tests.unit.trainer import reports

Kind = TypeVar("Kind", bound=Event)
STEPS = 40
_made = reports.result(steps=reports.steps(STEPS))
TRAINING = replace(
    _made,
    data=replace(_made.data, dataset=_made.data.dataset.model_copy(update={"samples": 1247})),
    outcome=Outcome(_made.outcome.began.model_copy(update={"total_steps": STEPS}), _made.outcome.finished),
)
REQUEST = TRAINING.job.request.model_copy(update={"method": "lora", "auto_approve_threshold": 85.0})
JOB = replace(
    TRAINING.job,
    request=REQUEST,
    dataset_id=TRAINING.data.dataset.dataset_id,
    attempts=1,
    total_steps=STEPS,
    step=0,
)
DATASET = TRAINING.data.dataset
_, STARTED = jobs.begin(JOB, DATASET, STEPS, 0)
_FILES = ("checkpoint", "checkpoint_config", "artifact", "report", "report_page", "model_card")
COMPLETED = completed_event(replace(TRAINING, job=JOB), {name: reports.blob(name) for name in _FILES}, (), ())


def _submitted() -> registry.Change:
    """What the registry makes of the finished training."""
    built = builders.submission(job=COMPLETED.job_id)
    if built.training is None:
        raise LookupError("the builder's submission has no training")
    submission = replace(
        built,
        artifact=COMPLETED.artifact,
        base_model=COMPLETED.base_model,
        training=replace(built.training, dataset=DATASET, metrics=dict(COMPLETED.metrics)),
    )
    return registry.register(builders.family(), submission, builders.act())


_SUBMITTED = _submitted()
ADAPTER_ID = _SUBMITTED.adapter_id


def _of(change: registry.Change, kind: type[Kind]) -> Kind:
    """The event of that type among those of a transition."""
    return next(one.event for one in change.events if isinstance(one.event, kind))


REGISTERED = _of(_SUBMITTED, v1.AdapterRegistered)


def _result(number: int) -> SampleResult:
    verdicts = dict.fromkeys(Criterion, Verdict(8.0, ""))
    return SampleResult(f"s{number:03}", "an answer", "gen", "stop", 90.0 if number < 18 else 65.0, verdicts)


EVALUATION = Evaluation(
    evaluation_id="evaluation-1",
    adapter_id=ADAPTER_ID,
    family=REGISTERED.adapter.family,
    domain=REGISTERED.adapter.domain,
    artifact_sha256=REGISTERED.adapter.artifact.blob.sha256,
    base_model=COMPLETED.base_model.name,
    wanted_dataset="",
    dataset_id="tax-law-golden-v1",
    version="1.0.0",
    golden_sha256=builders.digest("golden"),
    judge=reference_judge.NAME,
    max_tokens=512,
    pass_threshold=70.0,
    state="scored",
    total=20,
    reason="",
    requested_by="test",
    created_at=builders.START,
    waiting_since=None,
    finished_at=builders.START,
)
_RESULTS = [_result(number) for number in range(20)]
SCORED = scored_event(
    EVALUATION,
    summarise(_RESULTS, {one.sample_id: "easy" for one in _RESULTS}, EVALUATION.pass_threshold),
    None,
    None,
    builders.blob("evaluation report"),
    agreed=None,
    metrics={},
    regression=False,
    judge=JudgeDescription("reference-judge", "1", "", "", {}),
)


def _decided(policy: Policy) -> registry.Change:
    """What the registry does with that score under a policy."""
    evaluation = replace(
        builders.evaluation(evaluation_id=SCORED.evaluation_id),
        artifact_sha256=SCORED.artifact_sha256,
        judgement=Judgement(SCORED.score, SCORED.ci_low, SCORED.ci_high, SCORED.regression, SCORED.samples),
    )
    return registry.score(_SUBMITTED.family, ADAPTER_ID, evaluation, policy, builders.START + timedelta(minutes=11))


_APPROVED = _decided(Policy(mode=Mode.SIMPLE))
APPROVED = _of(_APPROVED, v1.Approved)
ACTIVATED = _of(_APPROVED, v1.AdapterActivated)
REVIEW = _of(_decided(Policy(minimum_samples=50)), v1.ReviewRequested)
REJECTED = _of(_decided(Policy(approve_at=99.0, reject_below=95.0)), v1.Rejected)
TO_SCORE: list[Happened] = [STARTED, COMPLETED, REGISTERED, SCORED]


def progressed(step: int, job_id: str = "job-1") -> v1.TrainingProgressed:
    return v1.TrainingProgressed(job_id=job_id, domain="tax-law", step=step, total_steps=STEPS, loss=1.5)


EVERYTHING: list[Happened] = [
    STARTED,
    progressed(10),
    TrainingProgress("job-1", 20, STEPS, {"loss": 1.2, "validation_loss": 1.3}),
    progressed(30),
    COMPLETED,
    REGISTERED,
    EvaluationProgress(ADAPTER_ID, 3, 20),
    SCORED,
    APPROVED,
    ACTIVATED,
]


# What the services answer over HTTP, as JSON.


def active_adapter() -> dict[str, Any]:
    """The approved version as the registry lists it."""
    return _listed(_APPROVED.family)


def waiting_adapter() -> dict[str, Any]:
    """The registered version as the registry lists it: it waits for its decision."""
    return _listed(_SUBMITTED.family)


def _listed(family: Family) -> dict[str, Any]:
    adapter = family.find(ADAPTER_ID)
    if adapter is None:
        raise LookupError(ADAPTER_ID)
    return AdapterView.of(adapter).model_dump(mode="json")


def job_state(state: JobState, total_steps: int, reason: str = "") -> dict[str, Any]:
    """A state in a job's stream."""
    return StateView.of(replace(JOB, state=state, total_steps=total_steps, error=reason)).model_dump(mode="json")


def job_step(step: int, **changes: Any) -> dict[str, Any]:
    """A step in a job's stream."""
    made: Stepped = reports.steps(step)[-1].model_copy(update=changes)
    return MetricView.of(made).model_dump(mode="json")


def job_validation(step: int, *, best: bool = True) -> dict[str, Any]:
    """A validation in a job's stream."""
    made = Validated(step=step, epoch=1.0, loss=1.5, seconds=1.0, best=best, metrics={"accuracy": 0.75})
    return ValidationView.of(made).model_dump(mode="json")


def crashed_job() -> dict[str, Any]:
    """A running job whose first attempt was killed."""
    begun = jobs.take_up(replace(JOB, state=JobState.QUEUED, attempts=0), builders.START, "w1")
    return JobView.of(jobs.crash(begun, "killed by signal 9", builders.START)).model_dump(mode="json")
