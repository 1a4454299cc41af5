"""`lorafleet adapters migrate` and `migrations`: versions carried over to another base model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fleet_cli.commands.options import OptionalDomain, ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls


class Strategy(StrEnum):
    """How a version gets to another base model."""

    AUTO = "auto"
    CONVERT = "convert"
    RETRAIN = "retrain"
    DISTIL = "distil"


def add(adapters: CommandGroup) -> None:
    """Add the commands to `lorafleet adapters`."""
    adapters.command("migrate")(migrate)
    adapters.command("migrations")(migrations)


def migrate(
    session: Session,
    *,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
    to_base_model: Annotated[
        str, typer.Option("--to-base-model", help="Base model to migrate to: its revision that the registry has.")
    ],
    strategy: Annotated[
        Strategy,
        typer.Option("--strategy", help="Strategy; auto takes the domain's rule, else retrains."),
    ] = Strategy.AUTO,
    reason: ReasonOption = "",
) -> None:
    """Migrate a version to another base model, or to another revision of its own."""
    requested = None if strategy is Strategy.AUTO else strategy.value
    found = session.client.call(calls.migrate(adapter_id, to_base_model, requested, reason))
    done = f"registered {found.new_adapter_id}" if found.new_adapter_id else f"training job {found.job_id}"
    session.answer(found, f"{found.adapter_id} to {found.to_base_model}: {found.strategy}, {done}")
    session.note("the new version is judged like any other; lorafleet adapters migrations shows how far it has come")


def migrations(session: Session, domain: OptionalDomain = None) -> None:
    """List migrations to other base models, newest first."""
    found = session.client.call(calls.migrations(domain))
    rows = [
        (
            one.migration_id,
            one.adapter_id,
            one.to_base_model,
            one.strategy,
            one.state,
            one.job_id,
            one.new_adapter_id,
            one.error,
        )
        for one in found
    ]
    columns = ("MIGRATION", "ADAPTER", "TO", "STRATEGY", "STATE", "JOB", "NEW ADAPTER", "ERROR")
    session.answer(found, table(columns, rows))
