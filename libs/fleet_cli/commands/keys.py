"""`lorafleet keys`: API keys, which the registry keeps."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from fleet_kit.auth import SCOPES
from lorafleet import calls
from lorafleet.errors import BadInput

keys = CommandGroup("Create, list and revoke API keys.")

_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


def _several(texts: list[str]) -> list[str]:
    return [part for text in texts for part in text.replace(",", " ").split()]


def _seconds(text: str) -> int:
    """A length of time such as 90d, 12h or 30m; raises `BadInput`."""
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if not found:
        raise BadInput("--expires", f"{text!r} is no length of time; give minutes, hours or days: 30m, 12h, 90d")
    return int(found[1]) * _SECONDS[found[2]]


@keys.command("create")
def create(
    session: Session,
    domains: Annotated[list[str], typer.Option("--domain", help="Domain, once for each; * means all.")],
    scopes: Annotated[list[str], typer.Option("--scope", help=f"Scope, once for each: {', '.join(SCOPES)}.")],
    name: Annotated[str, typer.Option("--name", help="What the key is for.")],
    expires: Annotated[
        str, typer.Option("--expires", help="Validity from now on: 30m, 12h, 90d, at most 366d.")
    ] = "90d",
) -> None:
    """Create an API key and print it; it cannot be shown again. It may do at most what your token may."""
    made = session.client.call(calls.create_key(name, _several(scopes), _several(domains), _seconds(expires)))
    session.note(f"key {made.key_id}, good until {made.expires_at}; it is not shown again")
    session.answer(made, made.key)


@keys.command("list")
def list_(session: Session) -> None:
    """List the API keys of your domains, newest first; never their text."""
    found = session.client.call(calls.keys())
    rows = [
        (
            one.key_id,
            one.name,
            " ".join(one.scopes),
            " ".join(one.domains),
            one.created_by,
            f"revoked {one.revoked_at}" if one.revoked_at else one.expires_at,
            one.last_used_at,
        )
        for one in found
    ]
    session.answer(found, table(("key", "name", "scopes", "domains", "by", "good until", "last used"), rows))


@keys.command("revoke")
def revoke(
    session: Session,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `keys list` shows it.")],
    reason: ReasonOption = "",
) -> None:
    """Revoke an API key: every service refuses it within seconds."""
    found = session.client.call(calls.revoke_key(key_id, reason))
    session.answer(found, f"{found.key_id} is revoked")
