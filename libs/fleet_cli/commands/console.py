"""`lorafleet console`: the web console, opened with a token of its own."""

from __future__ import annotations

import webbrowser
from datetime import timedelta
from typing import Annotated

import typer

from fleet_cli.commands.token import local_issuer, several
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_kit.auth import SCOPES
from lorafleet.errors import BadInput

console = CommandGroup("Open the web console.")
HIDDEN = ("candidates", "metrics")
"""Scopes that no page needs."""


@console.command("open")
def open_console(
    session: Session,
    *,
    scopes: Annotated[
        str, typer.Option("--scopes", help="Comma-separated scopes of the session (default: all that pages need).")
    ] = "",
    domains: Annotated[str, typer.Option("--domains", help="Comma-separated domains; * means all.")] = "*",
    subject: Annotated[str, typer.Option("--subject", help="Who decides, in audit trails.")] = "local-user",
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=24.0, help="Validity in hours.")] = 8.0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it, or print its address.")] = True,
) -> None:
    """Mint a short token with the local fleet's key and open the console with it."""
    reached = several(domains)
    wanted = several(scopes) or tuple(
        one for one in SCOPES if one not in HIDDEN and (one != "fleet:admin" or "*" in reached)
    )
    try:
        minted = local_issuer(session).mint(subject, wanted, reached, timedelta(hours=hours))
    except ValueError as error:
        raise BadInput("--scopes" if "scope" in str(error) else "--domains", str(error)) from error
    # Behind #: the browser sends that part to no server, and the page takes it out of the history.
    address = f"{session.home.service_url('console')}/console/sign-in#token={minted}"
    opened = browser and webbrowser.open(address)
    session.answer(
        {"address": address, "opened": opened, "hours": hours},
        "opened in the browser" if opened else address,
    )
