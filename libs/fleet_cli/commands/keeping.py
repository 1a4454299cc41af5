"""`lorafleet gc`, `adapters hold` and `adapters unhold`: what is kept, and the collection of what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls
from lorafleet.responses import Garbage, Link


class Service(StrEnum):
    """Those whose objects are swept by what their database refers to."""

    REGISTRY = "registry"
    TRAINER = "trainer"
    EVALUATOR = "evaluator"


def add_gc(group: CommandGroup) -> None:
    """Put `gc` into the root."""
    group.command("gc")(gc)


def gc(
    session: Session,
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Delete what is listed (default: only list it).")
    ] = False,
    at_most: Annotated[
        int, typer.Option("--at-most", min=0, help="Objects that may go though they are unusually many.")
    ] = 0,
    adopt: Annotated[
        list[Service] | None,
        typer.Option(
            "--adopt", help="Service whose objects become its database's own; deletes nothing (default: none)."
        ),
    ] = None,
) -> None:
    """List what retention rules let go and what nothing refers to; with --apply, delete it."""
    if adopt and apply:
        raise typer.BadParameter("look at what would go before you apply it: --adopt and --apply exclude each other")
    for service in adopt or ():
        marker = session.client.call(calls.adopt_objects(service))
        session.note(f"{service}: its objects are those of database {marker.database_id} from now on")
    # In this order: what the registry lets go, the trainer may delete.
    versions = session.client.call(calls.collect_versions(apply=apply, at_most=at_most))
    datasets = session.client.call(calls.collect_datasets(apply=apply, at_most=at_most))
    reports = session.client.call(calls.collect_reports(apply=apply, at_most=at_most))
    let_go = [*versions.released, *datasets.datasets, *reports.evaluations, *reports.golden]
    found: dict[str, Garbage] = {"registry": versions, "trainer": datasets, "evaluator": reports}
    session.answer(found, _shown(let_go, found))
    for name, garbage in found.items():
        if garbage.refused:
            session.note(f"{name}: --apply would be refused: {garbage.refused}")
    if not apply:
        session.note("nothing was deleted; --apply deletes it")


def add(group: CommandGroup) -> None:
    """Put the commands about one version into `adapters`."""
    group.command("hold")(hold)
    group.command("unhold")(unhold)


def hold(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
    reason: ReasonOption = "",
) -> None:
    """Hold a version: its files are kept, also where the retention rules let them go."""
    _held(session, adapter_id, "hold", reason)


def unhold(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
    reason: ReasonOption = "",
) -> None:
    """Release a hold: the version's files are left to the retention rules."""
    _held(session, adapter_id, "unhold", reason)


def _held(session: Session, adapter_id: str, verb: str, reason: str) -> None:
    found = session.client.call(calls.decide(adapter_id, verb, reason))
    session.answer(found, f"{found.adapter_id}: {'held' if found.held else 'not held'}")


def _shown(let_go: Sequence[Link], found: Mapping[str, Garbage]) -> Group:
    names = ("evaluation_id", "adapter_id", "dataset_id")
    gone = [f"{next(one[name] for name in names if name in one)}  {one['domain']}  {one['reason']}" for one in let_go]
    rows = [
        (
            f"{name}/{one.kind}",
            one.objects,
            one.bytes,
            one.referenced,
            one.young,
            one.unreferenced,
            one.unreferenced_bytes,
            one.deleted,
        )
        for name, garbage in found.items()
        for one in garbage.kinds
    ]
    columns = ("KIND", "OBJECTS", "BYTES", "REFERENCED", "YOUNG", "UNREFERENCED", "BYTES", "DELETED")
    return Group(Text("\n".join(["let go:", *(gone or ["nothing"])])), Text(""), table(columns, rows))
