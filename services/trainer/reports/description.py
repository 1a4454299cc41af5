"""From a training's request, data and messages to its report: pure, no I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fleet_events import v1
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.stored_card import StoredCard
from services.trainer.jobs.domain import Job
from services.trainer.reports.document import (
    DatasetPart,
    Energy,
    ExportPart,
    Results,
    StepPart,
    Times,
    TrainingReport,
    ValidationPart,
)
from services.trainer.training.protocol import Outcome, ResourceUsage, Stepped, Validated

WATTS_A_CORE = 5.0
"""Assumed for each busy core where the machine does not count its energy: a server processor's share, with memory."""

_LOSS = "validation_loss"


@dataclass(frozen=True)
class Result:
    """A training that is over: its request, data, messages and log. `lines` is the data set's file."""

    job: Job
    data: StoredDataset
    lines: Path
    outcome: Outcome
    steps: Sequence[Stepped]
    finished_at: datetime
    validations: Sequence[Validated] = ()


def describe(
    result: Result,
    files: Mapping[str, v1.Blob],
    exports: Sequence[ExportPart] = (),
    card: StoredCard | None = None,
) -> TrainingReport:
    """The report; `files` are the stored objects by name, `card` the data card."""
    job, finished = result.job, result.outcome.finished
    configuration = job.configuration
    return TrainingReport(
        job_id=job.job_id,
        domain=job.domain,
        description=job.request.description,
        objective=configuration.objective,
        method=configuration.method,
        continued_from=job.request.continue_from,
        requested_by=job.request.requested_by,
        base_model=job.base,
        dataset=_dataset(result, card),
        configuration=json.loads(configuration.canonical()),
        configuration_sha256=configuration.sha256,
        results=results(result),
        time=_times(result),
        energy=_energy(result),
        samples=finished.spoken,
        exports=tuple(exports),
        probe=finished.probe,
        files=dict(files),
        artifact_digest=finished.artifact_digest,
        environment=finished.environment,
        curve=tuple(StepPart.model_validate(step.model_dump(exclude={"kind"})) for step in result.steps),
        validations=tuple(
            ValidationPart.model_validate(one.model_dump(exclude={"kind"})) for one in result.validations
        ),
    )


def results(result: Result) -> Results:
    """Final numbers of a training. The validation loss is that of the weights which were kept."""
    steps, validations, finished = result.steps, result.validations, result.outcome.finished
    seconds = sum(step.seconds for step in steps)
    tokens = sum(step.tokens for step in steps)
    kept = finished.best_step if finished.best_step is not None else steps[-1].step
    measured = next((one.loss for one in reversed(validations) if one.step <= kept), None)
    return Results(
        steps=steps[-1].step,
        final_loss=steps[-1].loss,
        train_loss=sum(step.loss for step in steps) / len(steps),
        validation_loss=finished.metrics.get(_LOSS, measured),
        best_validation_loss=min((one.loss for one in validations), default=None),
        best_step=finished.best_step,
        stopped_early=finished.stopped_early,
        seconds=seconds,
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        peak_memory_bytes=max(step.peak_memory_bytes for step in steps),
        trainable_parameters=result.outcome.began.trainable_parameters,
        padded=result.outcome.began.padded,
        metrics={name: value for name, value in finished.metrics.items() if name != _LOSS},
    )


def metrics(result: Result) -> dict[str, float]:
    """The same as the flat numbers of TrainingCompleted; measures of the validation split begin with `eval_`."""
    found, began = results(result), result.outcome.began
    evaluated = {f"eval_{name.removeprefix('eval_')}": value for name, value in found.metrics.items()}
    if found.validation_loss is not None:
        evaluated.setdefault("eval_loss", found.validation_loss)
    return {
        "steps": float(found.steps),
        "final_loss": found.final_loss,
        "train_loss": found.train_loss,
        "seconds": found.seconds,
        "tokens": float(found.tokens),
        "tokens_per_second": found.tokens_per_second,
        "samples": float(began.samples),
        "left_out": float(began.too_long),
        "left_out_rating": float(began.unwanted),
        **evaluated,
    }


def _dataset(result: Result, card: StoredCard | None) -> DatasetPart:
    data, began = result.data, result.outcome.began
    return DatasetPart(
        dataset_id=data.dataset.dataset_id,
        blob=data.dataset.blob,
        kind=data.dataset.kind,
        samples=data.dataset.samples,
        validation_samples=began.validation_samples,
        query=data.query,
        min_rating=data.min_rating,
        trained_samples=began.samples,
        left_out_too_long=began.too_long,
        longest_sample_tokens=began.longest,
        tokens=began.tokens,
        completion_tokens=began.trained_tokens,
        card=card or None,
    )


def _times(result: Result) -> Times:
    job = result.job
    return Times(
        requested_at=job.created_at,
        started_at=job.started_at,
        finished_at=result.finished_at,
        waited_seconds=max(0.0, (job.started_at - job.created_at).total_seconds()) if job.started_at else 0.0,
        training_seconds=sum(step.seconds for step in result.steps),
        attempts=job.attempts,
    )


def _energy(result: Result) -> Energy | None:
    effort = result.outcome.finished.effort
    if effort is None:
        return None
    resumed = result.outcome.began.resumed_step
    mine = sum(step.seconds for step in result.steps if step.step > resumed)
    whole = sum(step.seconds for step in result.steps)
    # Steps of earlier attempts count as if they had cost the same a second.
    share = whole / mine if resumed and mine else 1.0
    notes = [_what_is_counted(effort)]
    if share > 1:
        notes.append(f"Measured from step {resumed} on and extended to the steps before.")
    if "gpu" in result.outcome.finished.environment:
        notes.append("The GPU is not in it.")
    joules = effort.joules if effort.joules is not None else effort.processor_seconds * WATTS_A_CORE
    return Energy(
        watt_hours=joules * share / 3600,
        processor_seconds=effort.processor_seconds * share,
        method="estimate" if effort.joules is None else "rapl",
        note=" ".join(notes),
    )


def _what_is_counted(effort: ResourceUsage) -> str:
    if effort.joules is None:
        return f"An estimate: busy processor seconds times an assumed {WATTS_A_CORE:g} W a core, not a measurement."
    return "Counted by the processor packages (RAPL), for the whole machine, other work included."
