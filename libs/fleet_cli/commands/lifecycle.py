"""`lorafleet lifecycle run | train`: one command from data to an approved adapter, or only to a trained one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from fleet_cli.bus import run_on_bus
from fleet_cli.commands.data import read_samples
from fleet_cli.commands.golden import ensure_golden, expect_golden, read_golden
from fleet_cli.files import to_ndjson
from fleet_cli.follow.follower import run_loop
from fleet_cli.follow.lifecycle import Loop, Step, StepState
from fleet_cli.follow.lifecycle_view import LoopView, footer, header, outcome_json, step_json
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_cli.training_options import TrainingOptions
from fleet_events import v1
from lorafleet import calls
from lorafleet.errors import BadInput, ExitCode

lifecycle = CommandGroup("Train, evaluate and approve an adapter with one command.")

DataOption = Annotated[
    str,
    typer.Option("--data", help='JSONL of samples to record first, lines {"prompt", "completion"} (default: none).'),
]
GoldenOption = Annotated[
    str, typer.Option("--golden", help="JSONL of golden samples to import first into --golden-dataset (default: none).")
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or only queue it.")]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=1, help="Seconds after which to stop following (default: no limit).")
]


@lifecycle.command("run")
def run(
    session: Session,
    *,
    options: TrainingOptions,
    data: DataOption = "",
    golden: GoldenOption = "",
    wait: WaitOption = True,
    wait_for_review: Annotated[
        bool, typer.Option("--wait-for-review", help="Wait for the decision where a human has to review.")
    ] = False,
    timeout: TimeoutOption = None,
) -> None:
    """Stream data, train, register, evaluate and approve an adapter.

    Exit code 0 when it is approved, 3 when a human has to review it, 4 when it is rejected or has failed.
    """
    request = options.request()
    bring_data(session, request, data, golden)
    if not wait:
        queue_only(session, request)
        return
    loop = follow(session, request, wait_for_review=wait_for_review, timeout=timeout)
    if loop.outcome is not None:
        raise typer.Exit(loop.outcome.exit_code)


def queue_only(session: Session, request: v1.TrainingRequested) -> None:
    """Queue the job, print its id and what the trainer warns of, and leave it to itself."""
    accepted = session.client.call(calls.request_training(request))
    for warning in accepted.warnings:
        session.note(f"warning: {warning}")
    session.answer(accepted, f"queued as job {accepted.job_id}; `lorafleet jobs watch {accepted.job_id}` follows it")


def bring_data(session: Session, request: v1.TrainingRequested, data: str, golden: str) -> None:
    """Record samples and golden samples from files; both are read whole before anything is sent."""
    samples = read_samples(data, "--data") if data else []
    held_out = read_golden(golden, "--golden") if golden else []
    if held_out and not request.golden_dataset_id:
        raise BadInput("--golden", "name the data set that the samples go to with --golden-dataset ID")
    if held_out:
        _bring_golden(session, request, held_out)
    elif request.golden_dataset_id:
        expect_golden(session, request.golden_dataset_id, request.domain)
    if samples:
        found = session.client.call(calls.record_samples(request.domain, to_ndjson(samples)))
        session.note(f"recorded {found.added} samples of {data} for {request.domain}, {found.duplicates} were known")


def _bring_golden(session: Session, request: v1.TrainingRequested, held_out: list[dict[str, object]]) -> None:
    ensure_golden(session, request.golden_dataset_id, request.domain)
    found = session.client.call(calls.add_golden_samples(request.golden_dataset_id, to_ndjson(held_out)))
    session.note(f"{found.dataset_id} version {found.version} has {found.total_samples} golden samples")


def follow(
    session: Session,
    request: v1.TrainingRequested,
    *,
    until: Step = Step.APPROVE,
    wait_for_review: bool = False,
    timeout: float | None = None,
) -> Loop:
    """Run a loop and show it: lines and bars, or one JSON object a step."""
    view = None if session.as_json else LoopView(session.out, until)
    job = ""

    def show(before: Loop, after: Loop) -> None:
        nonlocal job
        if view is None:
            _show_json(session, before, after)
        else:
            if not job:
                view.print_lines(header(after))
            view.show(before, after)
        job = after.job_id

    async def main() -> Loop:
        return await run_loop(
            session.home,
            request,
            show,
            lambda warning: session.note(f"warning: {warning}"),
            until=until,
            wait_for_review=wait_for_review,
            timeout=timeout,
        )

    try:
        with view or nullcontext():
            loop = run_on_bus(main)
    except KeyboardInterrupt:
        session.note(f"job {job} keeps running without this terminal: `lorafleet jobs show {job}`")
        raise
    if session.as_json:
        session.json_line(outcome_json(loop))
    elif until is Step.APPROVE or loop.outcome is not None:
        LoopView(session.out).print_lines(footer(loop))
    return loop


def _show_json(session: Session, before: Loop, after: Loop) -> None:
    for step in Step:
        state = after.steps[step].state
        again = step is Step.APPROVE and before.outcome is not after.outcome
        if state in (StepState.DONE, StepState.FAILED) and (state is not before.steps[step].state or again):
            session.json_line(step_json(step, after))


def add_train(root: CommandGroup) -> None:
    """Add `train` to the root."""

    @root.command("train")
    def train(
        session: Session,
        *,
        options: TrainingOptions,
        data: DataOption = "",
        wait: WaitOption = True,
        timeout: TimeoutOption = None,
    ) -> None:
        """Train an adapter on a data set or query; registration, evaluation and approval follow automatically."""
        request = options.request()
        bring_data(session, request, data, "")
        if not wait:
            queue_only(session, request)
            return
        loop = follow(session, request, until=Step.TRAIN, timeout=timeout)
        if loop.steps[Step.TRAIN].state is not StepState.DONE:
            raise typer.Exit(ExitCode.REJECTED)
