"""Who may see and do what: a domain is the tenancy boundary, checked on every read and write."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from fleet_kit.auth import Caller, require
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.registry.family import Adapter
from services.registry.store import answers, versions
from services.registry.store.answers import Answer

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


async def visible_answer(connection: Connection, generation_id: str, caller: Caller, kept_days: int) -> Answer:
    """The answer; a 404 Problem if there is none or it is not the caller's to see, which looks the same."""
    answer = await answers.find_answer(connection, generation_id)
    if answer is None or not _reaches(caller, answer):
        raise Problem(
            404,
            "Unknown answer",
            f"no answer {generation_id[:80]!r} in the domains of this token and the last {kept_days} days; use the "
            "`id` of the response, a moment after its end",
            field="generation_id",
        )
    return answer


def _reaches(caller: Caller, answer: Answer) -> bool:
    """All domains of a set's adapters; an answer of the base model belongs to none, so it is its caller's own."""
    if answer.domains:
        return all(caller.reaches(domain) for domain in answer.domains)
    return caller.domain_filter is None or caller.subject == answer.caller
