"""`lorafleet models`: the base model on disk."""

from __future__ import annotations

from fleet_cli import calls
from fleet_cli.faults import Fault
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table

models = CommandGroup("Prepare the base model; list what can be asked.")


@models.command("prepare")
def prepare(session: Session) -> None:
    """Convert the packaged base model once, so that the fleet starts fast. Nothing is downloaded."""
    from fleet_cli.stack import StackError, prepare_base_model

    session.note("preparing the base model (about half a minute the first time)")
    try:
        made = prepare_base_model(session.home.folder / "models")
    except StackError as error:
        raise Fault(str(error)) from error
    found = {"name": made.name, "revision": made.revision, "path": str(made.path)}
    session.answer(found, facts(found))


@models.command("list")
def list_(session: Session) -> None:
    """List what `--model` may name: the base model, adapters, families, auto."""
    found = session.client.call(calls.models())
    rows = [(getattr(one, "id", ""), getattr(one, "owned_by", "")) for one in found]
    session.answer(found, table(("MODEL", "OWNED BY"), rows))
