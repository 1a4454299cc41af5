"""`lorafleet evaluations`: the scores of judges, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


@evaluations.command("replay")
def replay(
    session: Session,
    *,
    evaluation_id: Annotated[str, typer.Argument(metavar="EVALUATION_ID", help="Id of the evaluation.")],
    sample: Annotated[str, typer.Option("--sample", metavar="SAMPLE_ID", help="Only this sample.")] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Send the recorded requests to the judge again, at their cost.")
    ] = False,
) -> None:
    """Replay verdicts from the recorded answers of the judge; the exit status is 1 unless all agree."""
    head, *rest = _events(session, evaluation_id, sample, again=again)
    replayed = [one for one in rest if "sample_id" in one]
    spent = next((one["spent"] for one in rest if "spent" in one), None)
    rows = [
        (
            one["sample_id"],
            _verdict(one["recorded"]),
            _verdict(one["replayed"]),
            "not replayed" if one["replayed"] is None else "agrees" if one["agrees"] else "differs",
            one["missing"] or (one["replayed"] or {}).get("why", ""),
        )
        for one in replayed
    ]
    answer = {**head, "results": replayed} | ({"spent": spent} if spent else {})
    session.answer(answer, table(("SAMPLE", "RECORDED", "REPLAYED", "", "WHY"), rows))
    if head["replayed_by"] != head["judge"]:
        session.note(f"judged by {head['judge']}; today's code and settings are {head['replayed_by']}")
    if spent:
        session.note(
            f"{spent['requests']} requests, {spent['prompt_tokens']} and {spent['answer_tokens']} tokens,"
            f" cost {spent['cost']:g}"
        )
    if not all(one["agrees"] for one in replayed):
        raise typer.Exit(1)


def _events(session: Session, evaluation_id: str, sample: str, *, again: bool) -> list[dict[str, Any]]:
    """All events of a replay; what it costs is noted as soon as it begins."""
    found: list[dict[str, Any]] = []
    for event in session.client.stream(calls.replay_evaluation(evaluation_id, sample_id=sample, again=again)):
        if again and not found:
            session.note(f"sends {event['requests']} requests to {event['judge']} (or fewer, within its budget)")
        found.append(event)
    return found


def _verdict(verdict: dict[str, Any] | None) -> str | None:
    """Score or standing, what it breaks, and the outcome of its pair."""
    if verdict is None:
        return None
    score = verdict["standing"] if verdict["overall"] is None else f"{verdict['overall']:.1f}"
    if verdict["standing"] == "undecided":
        score += " (undecided)"
    broken = f", breaks {len(verdict['vetoes'])}" if verdict["vetoes"] else ""
    return score + broken + (f", pair: {verdict['pair']}" if verdict["pair"] else "")


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
