"""`lorafleet jobs`: training jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fleet_cli import calls
from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table

jobs = CommandGroup("List, show and cancel training jobs.")

JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]


class State(StrEnum):
    """States of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


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
            f"{one.step}/{one.total_steps}" if one.total_steps else None,
            None if one.loss is None else f"{one.loss:.3f}",
            one.error,
        )
        for one in found
    ]
    session.answer(found, table(("JOB", "DOMAIN", "STATE", "STEP", "LOSS", "ERROR"), rows))


@jobs.command("show")
def show(session: Session, job_id: JobId) -> None:
    """Show one job."""
    found = session.client.call(calls.job(job_id))
    session.answer(found, facts(found.model_dump(mode="json")))


@jobs.command("metrics")
def metrics(session: Session, job_id: JobId) -> None:
    """Show what the training logged, readable while it runs."""
    found = session.client.call(calls.job_metrics(job_id))
    rows = [(one.step, _number(one.loss), _number(one.learning_rate), _number(one.gradient_norm)) for one in found]
    session.answer(found, table(("STEP", "LOSS", "LEARNING RATE", "GRADIENT NORM"), rows))


@jobs.command("cancel")
def cancel(session: Session, job_id: JobId, reason: ReasonOption = "") -> None:
    """End a job; what it trained is dropped."""
    answered = session.client.call(calls.cancel_job(job_id, reason))
    ended = answered.state == State.CANCELLED
    session.answer(answered, f"{job_id} {'was' if ended else 'is being'} cancelled")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
