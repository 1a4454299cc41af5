"""`lorafleet token`: tokens of the local issuer."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from fleet_cli.client.errors import BadInput
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_kit.auth import SCOPES, LocalIssuer
from fleet_kit.caller import FLEET_SCOPES, is_domain

token = CommandGroup("Mint access tokens with the local fleet's key.")


def _several(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.replace(",", " ").split() if part)


@token.command("mint")
def mint(
    session: Session,
    scopes: Annotated[str, typer.Option("--scopes", help=f"Comma-separated: {', '.join(SCOPES)}.")],
    domains: Annotated[str, typer.Option("--domains", help="Comma-separated domains; * is all.")] = "*",
    subject: Annotated[str, typer.Option("--subject", help="Whose token it is.")] = "local-user",
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=24 * 366, help="How long it is valid.")] = 720.0,
) -> None:
    """Print a signed token, once."""
    wanted, reached = _several(scopes), _several(domains)
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        said = repr(unknown[0]) if unknown else "nothing"
        raise BadInput("--scopes", f"{said} is no scope; known are {', '.join(SCOPES)}")
    for name in reached:
        if name != "*" and not is_domain(name):
            raise BadInput("--domains", f"{name!r} is no domain name; use lower-case letters, digits and hyphens, or *")
    if not reached:
        raise BadInput("--domains", "no domain given; name at least one, or * for all")
    if (of_fleet := FLEET_SCOPES & set(wanted)) and "*" not in reached:
        raise BadInput("--scopes", f"{min(of_fleet)!r} concerns every domain; give it with --domains '*'")
    try:
        issuer = LocalIssuer.open(session.home.folder / "keys")
    except (FileNotFoundError, NotADirectoryError) as error:
        where = session.home.folder / "keys"
        raise BadInput("--home", f"{where} holds no issuer key; `lorafleet up` makes it at its first start") from error
    try:
        minted = issuer.mint(subject, wanted, reached, timedelta(hours=hours))
    except ValueError as error:
        raise BadInput("--subject", f"{error}") from error
    session.answer({"token": minted, "subject": subject, "scopes": wanted, "domains": reached, "hours": hours}, minted)
