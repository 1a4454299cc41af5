"""Options that several commands share, and their checks."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fleet_kit.caller import is_domain
from lorafleet.errors import BadInput


def _checked_domain(value: str | None) -> str | None:
    if value is not None and not is_domain(value):
        raise typer.BadParameter(
            f"{value!r} is not a domain name; use lower-case letters, digits and hyphens, for example tax-law"
        )
    return value


ReasonOption = Annotated[str, typer.Option("--reason", help="Reason, kept in the audit trail (default: none).")]
DomainOption = Annotated[
    str, typer.Option("--domain", help="Domain: lower-case letters, digits and hyphens.", callback=_checked_domain)
]
OptionalDomain = Annotated[str | None, typer.Option("--domain", help="Only this domain.", callback=_checked_domain)]


def name_and_value(text: str) -> tuple[str, object]:
    """A setting `NAME=VALUE`; a value that is no JSON is a word. Raises `BadInput`."""
    name, given, value = text.partition("=")
    if not given or not name:
        raise BadInput("NAME=VALUE", f"expected NAME=VALUE, for example approve_at=90, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a word, such as mode=simple
