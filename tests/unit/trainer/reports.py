"""A training that is over, as the report's tests take it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleet_events import v1
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.jobs.domain import Job, JobState
from services.trainer.reports.description import Result
from services.trainer.training.protocol import (
    BeforeAfter,
    Began,
    Finished,
    Outcome,
    ProbeResult,
    ResourceUsage,
    Stepped,
    Validated,
)

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def blob(name: str, size: int = 1000) -> v1.Blob:
    return v1.Blob(uri=f"s3://lorafleet/trainer/{name}", sha256=f"{len(name):064x}", bytes=size)


def steps(count: int = 60) -> tuple[Stepped, ...]:
    return tuple(
        Stepped(
            step=one,
            epoch=one / 20,
            loss=3 / one,
            learning_rate=5e-4 * (1 - one / (count + 1)),
            gradient_norm=1 + 1 / one,
            tokens=100,
            seconds=0.5,
            peak_memory_bytes=2**20 * (100 + one),
        )
        for one in range(1, count + 1)
    )


def finished(**changes: object) -> Finished:
    made = Finished(
        steps=60,
        weights=Path("adapter_model.safetensors"),
        config=Path("adapter_config.json"),
        artifact=Path("artifact.arrow"),
        artifact_digest="d" * 64,
        probe=ProbeResult(prompt="?", top_ids=(1,), top_logits=(2.0,), base_logits=(1.0,), max_delta=1.0),
        environment={"torch": "2.13.0", "processor": "a <fast> one"},
        stopped_early=True,
        best_step=40,
        metrics={"accuracy": 0.75},
        spoken=(BeforeAfter(prompt="Hi <b>", wanted="Hello & welcome", before="", after="Hello"),),
        effort=ResourceUsage(seconds=40.0, processor_seconds=72.0),
    )
    return made.model_copy(update=changes)


def result(resumed: int = 0, **changes: object) -> Result:
    base = v1.BaseModel(name="tiny: llama", revision="a" * 64)
    request = v1.TrainingRequested(job_id="job-1", domain="tax-law", description="knows § 42 <script>")
    job = Job(
        "job-1", request, AT, JobState.RUNNING, base=base, attempts=2, started_at=AT + timedelta(seconds=5), step=60
    )
    dataset = v1.Dataset(dataset_id="e" * 64, blob=blob("data"), samples=30, kind="completion", validation_samples=6)
    began = Began(
        total_steps=60,
        resumed_step=resumed,
        samples=23,
        too_long=1,
        longest=90,
        tokens=2000,
        trained_tokens=900,
        validation_samples=6,
        trainable_parameters=5120,
    )
    validations = tuple(
        Validated(step=at, epoch=at / 20, loss=loss, seconds=1.0, best=at <= 40, metrics={})
        for at, loss in ((20, 1.5), (40, 1.25), (60, 1.75))
    )
    made = Result(
        job=job,
        data=StoredDataset(dataset, "tax-law", "vat", None, AT),
        lines=Path("data.jsonl"),
        outcome=Outcome(began, finished()),
        steps=steps(),
        finished_at=AT + timedelta(minutes=2),
        validations=validations,
    )
    return replace(made, **changes)  # type: ignore[arg-type]
