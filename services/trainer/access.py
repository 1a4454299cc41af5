"""Who may call the trainer over HTTP, and which domains that shows."""

from typing import Annotated

from fastapi import Depends, Query

from fleet_kit.auth import Caller, require

Trains = Annotated[Caller, Depends(require("train"))]
Limit = Annotated[int, Query(ge=1, le=1000)]


def domains_of(caller: Caller) -> list[str] | None:
    """The domains a caller reaches; None for all."""
    return None if "*" in caller.domains else sorted(caller.domains)
