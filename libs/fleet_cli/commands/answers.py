"""`lorafleet answers`: where an answer comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.client import calls
from fleet_cli.group import CommandGroup
from fleet_cli.provenance import answer_lines
from fleet_cli.session import Session

answers = CommandGroup("Follow answers back to the adapters and the training data that they come from.")


@answers.command("provenance")
def provenance(
    session: Session,
    generation_id: Annotated[str, typer.Argument(metavar="GENERATION_ID", help="The `id` of the response.")],
) -> None:
    """Show which adapters gave an answer, with the digest chain of each down to its training data."""
    found = session.client.call(calls.answer_provenance(generation_id))
    session.answer(found, "\n".join(answer_lines(found)))
