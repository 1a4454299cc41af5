"""`lorafleet jobs`: training jobs."""

from __future__ import annotations

from contextlib import closing, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from fleet_cli.client import calls
from fleet_cli.client.errors import ExitCode
from fleet_cli.commands.options import ReasonOption
from fleet_cli.files import save
from fleet_cli.follow.job_progress import Course
from fleet_cli.follow.job_progress_view import CourseView
from fleet_cli.follow.job_stream import follow_course
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from fleet_events.v1 import ExportKind

jobs = CommandGroup("List, show, pause, resume, retry and cancel training jobs.")

JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]


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
"""What a finished job leaves → where the trainer serves it, below the job."""


def _left(what: str) -> str:
    if what not in PATHS:
        raise typer.BadParameter(f"{what!r} is not one of {', '.join(PATHS)}.")
    return what


Left = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        callback=_left,
        autocompletion=lambda: list(PATHS),
        help=f"What the job left: {', '.join(PATHS)}. peft is a tar; exports are those asked for.",
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
    """Show what the training logged, readable while it runs."""
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

    Ends with 0 when it has succeeded, 4 when it has failed or was cancelled. A trainer that restarts is waited for.
    """
    view = None if session.as_json else CourseView(session.out)
    course = Course()
    with view or nullcontext():
        for told in follow_course(session.client, job_id):
            course = course.told(told)
            if view is None:
                session.json_line(told)
            else:
                view.show(told, course)
    if course.state is None or course.state.state != State.SUCCEEDED:
        raise typer.Exit(ExitCode.REJECTED)


@jobs.command("fetch")
def fetch(
    session: Session,
    job_id: JobId,
    what: Left,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
) -> None:
    """Save what a finished job left: its report, page, model card, PEFT folder or an export."""
    with closing(session.client.download(calls.job_file(job_id, PATHS[what]))) as chunks:
        save(chunks, output, "--output")
    session.note(f"written to {output}")


@jobs.command("cancel")
def cancel(session: Session, job_id: JobId, reason: ReasonOption = "") -> None:
    """End a job; its checkpoints stay, so that it can be retried."""
    answered = session.client.call(calls.change_job(job_id, "cancel", reason))
    ended = answered.state == State.CANCELLED
    session.answer(answered, f"{job_id} {'was' if ended else 'is being'} cancelled")


@jobs.command("pause")
def pause(session: Session, job_id: JobId, reason: ReasonOption = "") -> None:
    """Let a job rest; a running one saves a checkpoint first."""
    answered = session.client.call(calls.change_job(job_id, "pause", reason))
    rests = answered.state == State.PAUSED
    session.answer(answered, f"{job_id} {'was' if rests else 'is being'} paused")


@jobs.command("resume")
def resume(session: Session, job_id: JobId) -> None:
    """Go on with a paused job, from the step at which it stopped."""
    answered = session.client.call(calls.change_job(job_id, "resume"))
    session.answer(answered, f"{job_id} is {answered.state}")


@jobs.command("retry")
def retry(session: Session, job_id: JobId) -> None:
    """Queue a failed or cancelled job again; it goes on from its newest checkpoint."""
    answered = session.client.call(calls.change_job(job_id, "retry"))
    session.answer(answered, f"{job_id} is {answered.state}")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
