"""What a finished job leaves behind: its files in the object store, its report, and the event that names them all."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from fleet_events import v1
from services.trainer.datasets import records
from services.trainer.datasets.stored_card import adapter_type_of, read_data_card
from services.trainer.jobs.context import JobContext
from services.trainer.reports import model_card, page
from services.trainer.reports.description import Result, describe, metrics
from services.trainer.reports.document import ExportPart
from services.trainer.retry import patiently
from services.trainer.training.protocol import ProbeResult, Profiled
from services.trainer.training.router_prompts import prompts_about_nobody

__all__ = ["Result", "publish"]

Put: TypeAlias = Callable[[str, bytes | Path, str], Awaitable[v1.Blob]]


async def publish(result: Result, service: JobContext) -> v1.TrainingCompleted:
    """Store weights, artifact, exports, report, its page and the model card by digest, and name them in the event."""

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
    exports = await _store_exports(result, put)
    data_card = await read_data_card(result.data.dataset, service)
    report = describe(result, files, exports, data_card)
    shown, card = await asyncio.to_thread(lambda: (page.render(report), model_card.render(report)))
    files["report"] = await put("reports", report.model_dump_json(indent=1).encode(), "application/json")
    files["report_page"] = await put("reports", shown.encode(), "text/html; charset=utf-8")
    files["model_card"] = await put("reports", card.encode(), "text/markdown; charset=utf-8")
    examples = finished.example_prompts or await asyncio.to_thread(_examples, result.lines)
    completed = completed_event(result, files, exports, examples)
    return completed.model_copy(
        update={"adapter_type": adapter_type_of(data_card), "routing": await _store_routing(finished.routing, put)}
    )


async def _store_exports(result: Result, put: Put) -> tuple[ExportPart, ...]:
    return tuple(
        [
            ExportPart(
                blob=await put("exports", one.file, "application/octet-stream"),
                **one.model_dump(exclude={"file"}),
            )
            for one in result.outcome.finished.exports
        ]
    )


async def _store_routing(made: Profiled | None, put: Put) -> v1.RoutingProfile | None:
    if made is None:
        return None
    blob = await put("routing", made.file, "application/octet-stream")
    return v1.RoutingProfile(blob=blob, embedded_by=made.embedded_by, prompts=made.prompts)


def _examples(lines: Path) -> tuple[str, ...]:
    return prompts_about_nobody(records.read(lines))


def completed_event(
    result: Result, files: dict[str, v1.Blob], exports: tuple[ExportPart, ...], examples: tuple[str, ...]
) -> v1.TrainingCompleted:
    """The event of a finished training; `files` are the stored objects by name. Raises LookupError without a base."""
    job = result.job
    request, configuration = job.request, job.configuration
    if job.base is None:
        raise LookupError(f"job {job.job_id} has no base model")
    return v1.TrainingCompleted(
        job_id=job.job_id,
        domain=job.domain,
        method=configuration.method,
        objective=configuration.objective,
        continued_from=request.continue_from,
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
        report_page=files["report_page"],
        model_card=files["model_card"],
        exports=tuple(v1.Export(**one.model_dump()) for one in exports),
        metrics=metrics(result),
        probe=_probe(result.outcome.finished.probe),
        description=request.description,
        example_prompts=examples,
        golden_dataset_id=request.golden_dataset_id,
        version=request.version,
        bump=request.bump,
        auto_approve_threshold=request.auto_approve_threshold,
        requested_by=request.requested_by,
        reason=request.reason,
        finished_at=result.finished_at,
    )


def _probe(probe: ProbeResult) -> v1.Probe:
    return v1.Probe(prompt=probe.prompt, top_ids=probe.top_ids, top_logits=probe.top_logits, max_delta=probe.max_delta)
