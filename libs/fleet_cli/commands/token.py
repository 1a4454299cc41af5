"""`lorafleet token`: tokens of the local issuer, and the revocation of any."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_kit.auth import SCOPES, LocalIssuer
from fleet_kit.caller import FLEET_SCOPES, is_domain
from lorafleet import calls
from lorafleet.errors import BadInput

token = CommandGroup("Mint access tokens with the local fleet's key, and revoke tokens.")


def several(text: str) -> tuple[str, ...]:
    """Names with commas or spaces between."""
    return tuple(part for part in text.replace(",", " ").split() if part)


def local_issuer(session: Session) -> LocalIssuer:
    """The fleet's own issuer of tokens; raises BadInput where this machine has not its key."""
    where = session.home.folder / "keys"
    try:
        return LocalIssuer.open(where)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            "--home", f"{where} contains no issuer key; `lorafleet up` creates it at its first start"
        ) from error


@token.command("mint")
def mint(
    session: Session,
    scopes: Annotated[str, typer.Option("--scopes", help=f"Comma-separated: {', '.join(SCOPES)}.")],
    domains: Annotated[str, typer.Option("--domains", help="Comma-separated domains; * means all.")] = "*",
    subject: Annotated[str, typer.Option("--subject", help="Subject of the token.")] = "local-user",
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=24 * 366, help="Validity in hours.")] = 720.0,
) -> None:
    """Mint a signed token and print it; it is stored nowhere."""
    wanted, reached = several(scopes), several(domains)
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        found = f"unknown scope {unknown[0]!r}" if unknown else "no scope given"
        raise BadInput("--scopes", f"{found}; expected {', '.join(SCOPES)}")
    for name in reached:
        if name != "*" and not is_domain(name):
            raise BadInput("--domains", f"{name!r} is not a domain; use lower-case letters, digits and hyphens, or *")
    if not reached:
        raise BadInput("--domains", "no domain given; name at least one, or * for all")
    if (of_fleet := FLEET_SCOPES & set(wanted)) and "*" not in reached:
        raise BadInput("--scopes", f"{min(of_fleet)!r} concerns every domain; give it with --domains '*'")
    issuer = local_issuer(session)
    try:
        minted = issuer.mint(subject, wanted, reached, timedelta(hours=hours))
    except ValueError as error:
        raise BadInput("--subject", f"{error}") from error
    session.answer({"token": minted, "subject": subject, "scopes": wanted, "domains": reached, "hours": hours}, minted)


@token.command("revoke")
def revoke(
    session: Session,
    jti: Annotated[str, typer.Option("--jti", help="Id of a token, its claim jti (default: none).")] = "",
    subject: Annotated[
        str, typer.Option("--subject", help="Subject, of all its tokens issued until now (default: none).")
    ] = "",
    reason: ReasonOption = "",
) -> None:
    """Revoke a token, or all tokens of a subject issued until now: every service refuses them within seconds."""
    if bool(jti) == bool(subject):
        raise BadInput("--jti", "give either --jti or --subject")
    found = session.client.call(calls.revoke_tokens(jti, subject, reason))
    session.answer(found, f"revoked: {found.named_by} {found.value}")
