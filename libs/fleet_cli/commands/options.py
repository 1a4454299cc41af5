"""Options that several commands share, and their checks."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

DOMAIN_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def _checked_domain(value: str | None) -> str | None:
    if value is not None and not DOMAIN_PATTERN.fullmatch(value):
        raise typer.BadParameter(
            f"{value!r} is not a domain name; use lower-case letters, digits and hyphens, for example tax-law"
        )
    return value


ReasonOption = Annotated[str, typer.Option("--reason", help="Reason, kept in the audit trail (default: none).")]
DomainOption = Annotated[
    str, typer.Option("--domain", help="Domain: lower-case letters, digits and hyphens.", callback=_checked_domain)
]
OptionalDomain = Annotated[str | None, typer.Option("--domain", help="Only this domain.", callback=_checked_domain)]


class Method(StrEnum):
    """Training methods."""

    LORA = "lora"
    RSLORA = "rslora"
    QLORA = "qlora"
    DORA = "dora"


class Bump(StrEnum):
    """Version number to raise."""

    PATCH = "patch"
    MINOR = "minor"
    MAJOR = "major"
