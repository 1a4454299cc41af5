"""Options that several commands share, and their checks."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_kit.caller import is_domain


def _checked_domain(value: str | None) -> str | None:
    if value is not None and not is_domain(value):
        raise typer.BadParameter(
            f"{value!r} is no domain name; use lower-case letters, digits and hyphens, for example tax-law"
        )
    return value


ReasonOption = Annotated[str, typer.Option("--reason", help="Why; goes into the audit trail.")]
DomainOption = Annotated[
    str, typer.Option("--domain", help="Domain: lower-case letters, digits and hyphens.", callback=_checked_domain)
]
OptionalDomain = Annotated[str | None, typer.Option("--domain", help="Only this domain.", callback=_checked_domain)]
