"""Who may see and do what: a domain is the tenancy boundary, checked on every read and write."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from fleet_kit.auth import Caller, require
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.registry.family import Adapter
from services.registry.store import versions

Reader = Annotated[Caller, Depends(require("adapters:read"))]
Writer = Annotated[Caller, Depends(require("adapters:write"))]
Approver = Annotated[Caller, Depends(require("adapters:approve"))]
Admin = Annotated[Caller, Depends(require("admin"))]


async def visible(connection: Connection, adapter_id: str, caller: Caller) -> Adapter:
    """The version; a 404 Problem if there is none or it lies outside the caller's domains, which looks the same."""
    adapter = await versions.find_adapter(connection, adapter_id)
    if adapter is None or not caller.reaches(adapter.submission.domain):
        raise Problem(
            404,
            "Unknown adapter",
            f"no adapter {adapter_id!r} in the domains of this token; GET /v1/adapters lists them",
            field="adapter_id",
        )
    return adapter
