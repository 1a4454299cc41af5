"""HTTP in: where an answer comes from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path

from fleet_kit.db import Connection
from services.registry.access import Reader, visible_answer
from services.registry.answer_provenance import AnsweringAdapter, AnswerProvenance
from services.registry.family import Adapter
from services.registry.parts import ThisService
from services.registry.provenance import Provenance
from services.registry.store import usage, versions
from services.registry.store.answers import AnsweredWith
from services.registry.timeline.history import History

router = APIRouter(prefix="/answers")

LONGEST_ANCESTRY = 100


@router.get("/{generation_id}/provenance", summary="The adapters that gave an answer, and their training data")
async def get_answer_provenance(
    generation_id: Annotated[str, Path(max_length=500)], caller: Reader, service: ThisService
) -> AnswerProvenance:
    async with service.db.acquire(timeout=5) as connection:
        answer = await visible_answer(connection, generation_id, caller, service.settings.answers_kept_days)
        adapters = [await _followed(connection, one, answer.answered_at) for one in answer.adapters]
    return AnswerProvenance.of(answer, adapters)


async def _followed(connection: Connection, given: AnsweredWith, answered_at: datetime) -> AnsweringAdapter:
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
    when_answered = None
    if ancestry:
        submission = ancestry[0].submission
        history = await History.read(connection, submission.family, submission.domain)
        when_answered = history.version_at(given.adapter_id, answered_at)
    return AnsweringAdapter.of(given, ancestry, chain, missing, when_answered)


async def _ancestry(connection: Connection, adapter_id: str) -> tuple[list[Adapter], str]:
    """The version and those that its training continued, newest first; what the last one continues beyond them."""
    found: list[Adapter] = []
    wanted = adapter_id
    while wanted and len(found) < LONGEST_ANCESTRY:
        # A training continues a version by its id, or by the id of the job that made it.
        adapter = await versions.find_adapter(connection, wanted) or await versions.find_job(connection, wanted)
        if adapter is None or (found and adapter.submission.domain != found[0].submission.domain):
            break  # the trainer continues no version of another domain; if it ever did, that one is not shown
        found.append(adapter)
        wanted = adapter.submission.training.continued_from if adapter.submission.training else ""
    return found, wanted
