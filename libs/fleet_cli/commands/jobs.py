"""`lorafleet jobs`: training jobs."""

from __future__ import annotations

from contextlib import closing, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from fleet_cli.commands.options import ReasonOption
from fleet_cli.files import save
from fleet_cli.follow.job_progress import JobProgress
from fleet_cli.follow.job_progress_view import JobProgressView
from fleet_cli.follow.job_stream import follow_job
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from fleet_events.v1 import ExportKind
from lorafleet import calls
from lorafleet.errors import ExitCode

jobs = CommandGroup("List, show, watch, pause, resume, retry and cancel training jobs; fetch their metrics and files.")

JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="Id of the job, as `jobs list` shows it.")]


class State(StrEnum):
    """States of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


PATHS = {
    "report": "report",
    "page": "report.html",
    "card": "model-card",
    "peft": "peft",
    **{kind.value: f"exports/{kind}" for kind in ExportKind},
}
"""File of a finished job → its path below the job in the trainer's API."""


def _job_file(what: str) -> str:
    if what not in PATHS:
        raise typer.BadParameter(f"{what!r} is not one of {', '.join(PATHS)}.")
    return what


JobFile = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        callback=_job_file,
        autocompletion=lambda: list(PATHS),
        help=f"File to fetch: {', '.join(PATHS)}. peft is a tar; exports are those requested.",
    ),
]


@jobs.command("list")
def list_(
    session: Session, state: Annotated[State | None, typer.Option("--state", help="Only this state.")] = None
) -> None:
    """List jobs, newest first."""
    found = session.client.call(calls.jobs(state.value if state else None))
    rows = [
        (
            one.job_id,
            one.domain,
            one.state,
            one.priority or None,
            f"{one.step}/{one.total_steps}" if one.total_steps else None,
            None if one.loss is None else f"{one.loss:.3f}",
            one.error,
        )
        for one in found
    ]
    session.answer(found, table(("JOB", "DOMAIN", "STATE", "PRIORITY", "STEP", "LOSS", "ERROR"), rows))


@jobs.command("show")
def show(session: Session, job_id: JobId) -> None:
    """Show one job, with every attempt at it and why it ended."""
    found = session.client.call(calls.job(job_id))
    rows = [(one.number, one.worker, one.started_at, one.ended_at, one.outcome, one.reason) for one in found.history]
    attempts = table(("ATTEMPT", "WORKER", "FROM", "TO", "OUTCOME", "REASON"), rows)
    known = facts(found.model_dump(mode="json", exclude={"history"}))
    session.answer(found, Group(known, attempts) if rows else known)


@jobs.command("metrics")
def metrics(session: Session, job_id: JobId) -> None:
    """Show the logged steps of a training, also while it runs."""
    found = session.client.call(calls.job_metrics(job_id))
    rows = [
        (
            one.step,
            _number(one.loss),
            _number(one.learning_rate),
            _number(one.gradient_norm),
            _number(one.tokens_per_second),
            f"{one.peak_memory_bytes / 2**20:.0f} MiB" if one.peak_memory_bytes else None,
        )
        for one in found
    ]
    session.answer(found, table(("STEP", "LOSS", "LEARNING RATE", "GRADIENT NORM", "TOKENS/S", "PEAK MEMORY"), rows))


@jobs.command("watch")
def watch(session: Session, job_id: JobId) -> None:
    """Follow a job live: step, loss, validation loss, learning rate, gradient norm, speed, memory and time left.

    Exit code 0 when the job succeeded, 4 when it failed or was cancelled. A restart of the trainer is waited for.
    """
    view = None if session.as_json else JobProgressView(session.out)
    progress = JobProgress()
    with view or nullcontext():
        for event in follow_job(session.client, job_id):
            progress = progress.after(event)
            if view is None:
                session.json_line(event)
            else:
                view.show(event, progress)
    if progress.state is None or progress.state.state != State.SUCCEEDED:
        raise typer.Exit(ExitCode.REJECTED)


@jobs.command("fetch")
def fetch(
    session: Session,
    job_id: JobId,
    what: JobFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
) -> None:
    """Save a file of a finished job: its report, page, model card, PEFT folder or an export."""
    with closing(session.client.download(calls.job_file(job_id, PATHS[what]))) as chunks:
        save(chunks, output, "--output")
    session.note(f"written to {output}")


@jobs.command("cancel")
def cancel(session: Session, job_id: JobId, reason: ReasonOption = "") -> None:
    """Cancel a job; its checkpoints stay, so that it can be retried."""
    answered = session.client.call(calls.change_job(job_id, "cancel", reason))
    ended = answered.state == State.CANCELLED
    session.answer(answered, f"{job_id} {'was' if ended else 'is being'} cancelled")


@jobs.command("pause")
def pause(session: Session, job_id: JobId, reason: ReasonOption = "") -> None:
    """Pause a job; a running one saves a checkpoint first."""
    answered = session.client.call(calls.change_job(job_id, "pause", reason))
    paused = answered.state == State.PAUSED
    session.answer(answered, f"{job_id} {'was' if paused else 'is being'} paused")


@jobs.command("resume")
def resume(session: Session, job_id: JobId) -> None:
    """Resume a paused job from the step at which it stopped."""
    answered = session.client.call(calls.change_job(job_id, "resume"))
    session.answer(answered, f"{job_id} is {answered.state}")


@jobs.command("retry")
def retry(session: Session, job_id: JobId) -> None:
    """Retry a failed or cancelled job from its newest checkpoint."""
    answered = session.client.call(calls.change_job(job_id, "retry"))
    session.answer(answered, f"{job_id} is {answered.state}")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
