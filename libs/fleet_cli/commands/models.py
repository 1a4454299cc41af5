"""`lorafleet models`: the base model on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from lorafleet import calls
from lorafleet.errors import BadInput, FleetError

models = CommandGroup("Prepare and describe base models; list the models that can be requested.")


@models.command("prepare")
def prepare(session: Session) -> None:
    """Prepare the packaged base model once, so that the fleet starts fast. Nothing is downloaded."""
    from fleet_cli.stack import StackError, prepare_base_model

    session.note("preparing the base model (about half a minute the first time)")
    try:
        made = prepare_base_model(session.home.folder / "models")
    except StackError as error:
        raise FleetError(str(error)) from error
    found = {"name": made.name, "revision": made.revision, "path": str(made.path)}
    session.answer(found, facts(found))


@models.command("describe")
def describe(
    session: Session,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of the base model (config.json, safetensors).", exists=True, file_okay=False
        ),
    ],
) -> None:
    """Describe a base model's layers in a file in its folder, for services without torch. Needs torch."""
    from lora_core.description import write_description
    from lora_core.errors import AdapterError
    from lora_core.layer_shapes import Description

    try:
        file = write_description(folder)
    except AdapterError as error:
        raise BadInput("FOLDER", str(error)) from error
    described = Description.model_validate_json(file.read_bytes())
    decoder = {name.rpartition(".")[2] for name, layer in described.layers.items() if layer.decoder}
    found = {
        "file": str(file),
        "architecture": described.architecture,
        "quantisation": described.quantisation or "none",
        "decoder": ", ".join(sorted(decoder)) or "no linear layers",
        "not adaptable": "; ".join(sorted(set(described.others.values()))) or "nothing",
    }
    session.answer(found, facts(found))


@models.command("list")
def list_(session: Session) -> None:
    """List the values of `--model`: the base model, adapters, families, auto."""
    found = session.client.call(calls.models())
    rows = [(getattr(one, "id", ""), getattr(one, "owned_by", "")) for one in found]
    session.answer(found, table(("MODEL", "OWNED BY"), rows))
