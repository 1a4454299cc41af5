"""`lorafleet evaluations`: the scores of judges, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from lorafleet import calls

evaluations = CommandGroup("List, show and request evaluations.")


@evaluations.command("list")
def list_(
    session: Session,
    adapter: Annotated[str | None, typer.Option("--adapter", help="Only this adapter.")] = None,
) -> None:
    """List evaluations, newest first."""
    found = session.client.call(calls.evaluations(adapter))
    rows = [
        (
            one.evaluation_id,
            one.adapter_id,
            one.golden_dataset_id,
            one.state,
            None if one.score is None else f"{one.score:.1f}",
            None if one.ci_low is None or one.ci_high is None else f"{one.ci_low:.1f} to {one.ci_high:.1f}",
        )
        for one in found
    ]
    session.answer(found, table(("EVALUATION", "ADAPTER", "GOLDEN DATA SET", "STATE", "SCORE", "INTERVAL"), rows))


@evaluations.command("show")
def show(
    session: Session,
    evaluation_id: Annotated[str, typer.Argument(metavar="EVALUATION_ID", help="Id of the evaluation.")],
) -> None:
    """Show one evaluation."""
    found = session.client.call(calls.evaluation(evaluation_id))
    session.answer(found, facts(found.model_dump(mode="json")))


@evaluations.command("request")
def request(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
    golden: Annotated[
        str, typer.Option("--golden-dataset", help="Golden data set to judge with (default: newest of the domain).")
    ] = "",
) -> None:
    """Request another evaluation of a version."""
    accepted = session.client.call(calls.request_evaluation(adapter_id, golden))
    session.answer(accepted, facts(accepted.model_dump(mode="json")))


@evaluations.command("harness")
def harness(
    session: Session,
    *,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
    tasks: Annotated[Path, typer.Option("--tasks", metavar="FILE.yaml", help="Task of lm-evaluation-harness.")],
    program: Annotated[str, typer.Option("--program", help="The harness' program.")] = "lm_eval",
    tokenizer: Annotated[
        str,
        typer.Option("--tokenizer", help="Folder of the base model, for tasks of likelihoods (default: texts alone)."),
    ] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Documents of the task (default: all).")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Requests in flight.")] = 4,
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="When to give up.")] = 60.0,
    reason: ReasonOption = "",
) -> None:
    """Run a task of lm-evaluation-harness on a version and keep what it measured as the version's own metrics."""
    # Here, since other commands do without numpy.
    from fleet_cli.harness import Harness, run_tasks

    how = Harness(program, limit, 60 * minutes, concurrency, tokenizer)
    home = session.home
    found = run_tasks(how, adapter_id, tasks, home.service_url("inference"), home.token())
    note = f"lm-evaluation-harness, {tasks.name}" + ("" if limit is None else f", {limit} documents at most")
    bodies = {one.name: one.body | {"note": note} for one in found}
    session.client.call(calls.set_metrics(adapter_id, bodies, reason or note))
    rows = [
        (
            one.name,
            f"{one.value:.4g}",
            None if one.ci_low is None else f"{one.ci_low:.4g} to {one.ci_high:.4g}",
            one.samples,
        )
        for one in found
    ]
    session.answer(bodies, table(("METRIC", "VALUE", "INTERVAL", "DOCUMENTS"), rows))
