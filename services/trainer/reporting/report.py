"""What a finished job leaves behind: its files in the object store, its report, and the event that names them all."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from fleet_events import v1
from services.trainer.data.dataset import StoredDataset
from services.trainer.domain import Job
from services.trainer.jobs.attempt import Outcome
from services.trainer.jobs.patience import patiently
from services.trainer.service import TrainerService
from services.trainer.training.progress import ProbeResult, Stepped

_EXAMPLES = 64
_EXAMPLE_CHARACTERS = 500


@dataclass(frozen=True)
class Result:
    """A training that is over: what was asked, trained on, said and logged. `lines` is the data set's file."""

    job: Job
    data: StoredDataset
    lines: Path
    outcome: Outcome
    steps: Sequence[Stepped]
    finished_at: datetime


def describe(result: Result, files: dict[str, v1.Blob]) -> dict[str, object]:
    """The training report as JSON values. `seconds` counts every step once, whichever attempt did it."""
    job, data, outcome = result.job, result.data, result.outcome
    began, configuration = outcome.began, job.configuration
    return {
        "job_id": job.job_id,
        "domain": job.domain,
        "base_model": job.base.model_dump(mode="json") if job.base else None,
        "dataset": {
            **data.dataset.model_dump(mode="json"),
            "query": data.query,
            "min_rating": data.min_rating,
            "trained_samples": began.samples,
            "left_out_too_long": began.too_long,
            "longest_sample_tokens": began.longest,
            "tokens": began.tokens,
            "completion_tokens": began.trained_tokens,
        },
        "configuration": json.loads(configuration.canonical()),
        "configuration_sha256": configuration.sha256,
        "results": summary(result.steps),
        "attempts": job.attempts,
        "requested_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": result.finished_at.isoformat(),
        "probe": outcome.finished.probe.model_dump(mode="json"),
        "files": {name: blob.model_dump(mode="json") for name, blob in files.items()},
        "artifact_digest": outcome.finished.artifact_digest,
        "environment": outcome.finished.environment,
        "curve": [step.model_dump(mode="json", exclude={"kind"}) for step in result.steps],
    }


def summary(steps: Sequence[Stepped]) -> dict[str, float]:
    """Final numbers of a training: loss of the last step and mean of all, time, speed."""
    seconds = sum(step.seconds for step in steps)
    tokens = sum(step.tokens for step in steps)
    return {
        "steps": float(steps[-1].step),
        "final_loss": steps[-1].loss,
        "train_loss": sum(step.loss for step in steps) / len(steps),
        "seconds": seconds,
        "tokens": float(tokens),
        "tokens_per_second": tokens / seconds if seconds else 0.0,
    }


async def publish(result: Result, service: TrainerService) -> v1.TrainingCompleted:
    """Store weights, artifact and report by digest, and name them in the event."""

    async def put(kind: str, content: bytes | Path, content_type: str = "application/octet-stream") -> v1.Blob:
        return await patiently(
            f"upload of {kind}",
            lambda: service.blobs.put(kind, content, content_type=content_type),
            seconds=service.settings.patience_seconds,
        )

    finished = result.outcome.finished
    files = {
        "checkpoint": await put("checkpoints", finished.weights),
        "checkpoint_config": await put("checkpoints", finished.config, "application/json"),
        "artifact": await put("artifacts", finished.artifact),
    }
    report = json.dumps(describe(result, files), sort_keys=True, indent=1).encode()
    files["report"] = await put("reports", report, "application/json")
    examples = await asyncio.to_thread(example_prompts, result.lines)
    return _completed(result, files, examples)


def example_prompts(lines: Path) -> tuple[str, ...]:
    """A few prompts of a data set, for the router: one of each answer first, then further ones of the same answers.

    The data set's order is that of digests, so that within an answer the first are a fair draw.
    """
    by_answer: dict[str, list[str]] = {}
    with lines.open(encoding="utf-8") as file:
        for line in file:
            sample = json.loads(line)
            by_answer.setdefault(sample["completion"], []).append(sample["prompt"][:_EXAMPLE_CHARACTERS])
    rounds = zip_longest(*by_answer.values())
    prompts = dict.fromkeys(prompt for each in rounds for prompt in each if prompt)
    return tuple(prompts)[:_EXAMPLES]


def _completed(result: Result, files: dict[str, v1.Blob], examples: tuple[str, ...]) -> v1.TrainingCompleted:
    job, began = result.job, result.outcome.began
    request, configuration = job.request, job.configuration
    if job.base is None:
        raise LookupError(f"job {job.job_id} has no base model")
    return v1.TrainingCompleted(
        job_id=job.job_id,
        domain=job.domain,
        method=configuration.method,
        base_model=job.base,
        dataset=result.data.dataset,
        configuration=configuration.canonical(),
        configuration_sha256=configuration.sha256,
        checkpoint=files["checkpoint"],
        checkpoint_config=files["checkpoint_config"],
        artifact=v1.Artifact(
            blob=files["artifact"],
            rank=configuration.rank,
            alpha=configuration.alpha,
            target_modules=configuration.target_modules,
        ),
        report=files["report"],
        metrics={**summary(result.steps), "samples": float(began.samples), "left_out": float(began.too_long)},
        probe=_probe(result.outcome.finished.probe),
        description=request.description,
        example_prompts=examples,
        golden_dataset_id=request.golden_dataset_id,
        version=request.version,
        bump=request.bump,
        auto_approve_threshold=request.auto_approve_threshold,
        requested_by=request.requested_by,
        finished_at=result.finished_at,
    )


def _probe(probe: ProbeResult) -> v1.Probe:
    return v1.Probe(prompt=probe.prompt, top_ids=probe.top_ids, top_logits=probe.top_logits, max_delta=probe.max_delta)
