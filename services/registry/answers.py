"""HTTP in: where an answer comes from."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Path

from fleet_kit.auth import Caller
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from fleet_kit.faults import describe
from services.registry.access import Reader
from services.registry.answer_provenance import AnsweringAdapter, AnswerProvenance
from services.registry.family import Adapter
from services.registry.parts import RegistryService, ThisService
from services.registry.provenance import Provenance
from services.registry.store import answers, usage, versions
from services.registry.store.answers import Answer, AnsweredWith

log = structlog.get_logger()
router = APIRouter(prefix="/answers")

LONGEST_ANCESTRY = 100
SWEEP_SECONDS = 600.0


@router.get("/{generation_id}/provenance", summary="The adapters that gave an answer, and their training data")
async def get_answer_provenance(
    generation_id: Annotated[str, Path(max_length=500)], caller: Reader, service: ThisService
) -> AnswerProvenance:
    async with service.db.acquire(timeout=5) as connection:
        answer = await answers.find_answer(connection, generation_id)
        if answer is None or not _reaches(caller, answer):
            kept = service.settings.answers_kept_days
            raise Problem(
                404,
                "Unknown answer",
                f"no answer {generation_id[:80]!r} in the domains of this token and the last {kept} days; use the `id` "
                "of the response, a moment after its end",
                field="generation_id",
            )
        adapters = [await _followed(connection, one) for one in answer.adapters]
    return AnswerProvenance.of(answer, adapters)


def _reaches(caller: Caller, answer: Answer) -> bool:
    """All domains of a set's adapters; an answer of the base model belongs to none, so it is its caller's own."""
    if answer.domains:
        return all(caller.reaches(domain) for domain in answer.domains)
    return caller.domain_filter is None or caller.subject == answer.caller


async def _followed(connection: Connection, given: AnsweredWith) -> AnsweringAdapter:
    ancestry, missing = await _ancestry(connection, given.adapter_id)
    chain = [
        Provenance.of(
            adapter,
            await versions.evaluations_of(connection, adapter.adapter_id),
            await usage.replicas_of(connection, adapter.adapter_id),
            await usage.usage_of(connection, adapter.adapter_id),
        )
        for adapter in ancestry
    ]
    return AnsweringAdapter.of(given, ancestry, chain, missing)


async def _ancestry(connection: Connection, adapter_id: str) -> tuple[list[Adapter], str]:
    """The version and those that its training continued, newest first; what the last one continues beyond them."""
    found: list[Adapter] = []
    wanted = adapter_id
    while wanted and len(found) < LONGEST_ANCESTRY:
        # A training continues a version by its id, or by the id of the job that made it.
        adapter = await versions.find_adapter(connection, wanted) or await versions.find_job(connection, wanted)
        if adapter is None:
            break
        found.append(adapter)
        wanted = adapter.submission.training.continued_from if adapter.submission.training else ""
    return found, wanted


async def forget_old(service: RegistryService) -> None:
    """Delete answers that are older than `answers_kept_days`, until cancelled."""
    age = timedelta(days=service.settings.answers_kept_days)
    while True:
        try:
            async with service.db.acquire(timeout=5) as connection:
                more = await answers.forget_answers(connection, age)
        except Exception as error:
            log.warning("old_answers_not_deleted", reason=describe(error))
            more = False
        await asyncio.sleep(0.1 if more else SWEEP_SECONDS)
