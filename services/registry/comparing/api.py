"""HTTP in: versions compared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import TypeAdapter

from fleet_events import v1
from fleet_kit.auth import Caller
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.registry.access import Reader, visible
from services.registry.comparing import configuration
from services.registry.comparing.evidence import Evidence, Pair, Preferences, judged_preferences
from services.registry.comparing.fairness import FairPair
from services.registry.comparing.schemas import VersionComparison
from services.registry.comparing.significance import Scores, compare_pairs, fair_pairs
from services.registry.parts import RegistryService, ThisService
from services.registry.store import metrics, preferences, usage, versions

router = APIRouter()

MOST_VERSIONS = 5
MAX_SCORES_BYTES = 64 << 20
"""Of one evaluation's scores: more than a million samples."""
_SCORES = TypeAdapter(dict[str, dict[str, float]])


@router.get("/compare", summary="Compare versions: what differs, what is better, and whether that is significant")
async def compare_versions(
    caller: Reader,
    service: ThisService,
    versions: Annotated[str, Query(description=f"2 to {MOST_VERSIONS} adapter ids, commas between", max_length=2000)],
) -> VersionComparison:
    named = list(dict.fromkeys(name.strip() for name in versions.split(",") if name.strip()))
    if not 2 <= len(named) <= MOST_VERSIONS:
        detail = f"{len(named)} different versions were named, expected 2 to {MOST_VERSIONS}, commas between them"
        raise Problem(422, "Invalid request", detail, field="versions")
    async with service.db.acquire(timeout=5) as connection:
        evidence = tuple([await evidence_of(connection, name, caller) for name in named])
        await preferences.name_adapters(connection)
        people = await preferences.tallies(connection, named)
    met = Preferences(people, judged_preferences(evidence))
    fair = fair_pairs(evidence)
    scores = await scores_of(service, fair)
    # Thousands of draws a pair take a moment; the event loop serves others meanwhile.
    results = await asyncio.to_thread(compare_pairs, evidence, fair, scores, met)
    differing = configuration.differences([one.adapter for one in evidence])
    return VersionComparison.of(evidence, differing, results, met)


async def evidence_of(connection: Connection, adapter_id: str, caller: Caller) -> Evidence:
    """A version that the caller may see, with its numbers; raises Problem 404."""
    return Evidence(
        adapter=await visible(connection, adapter_id, caller),
        evaluations=await versions.evaluations_of(connection, adapter_id),
        feedback=await usage.feedback_of(connection, adapter_id),
        usage=await usage.usage_of(connection, adapter_id),
        own_metrics=await metrics.own_metrics(connection, adapter_id),
    )


async def scores_of(service: RegistryService, fair: Mapping[Pair, FairPair | str]) -> dict[str, Scores]:
    """The samples' scores of every evaluation that is compared, by its id; raises Problem 422 for too large ones."""
    compared = [one for pair in fair.values() if isinstance(pair, FairPair) for one in (pair.new, pair.old)]
    blobs = {one.evaluation_id: one.scores for one in compared if one.scores is not None}
    return {evaluation_id: await _scores(service, blob) for evaluation_id, blob in blobs.items()}


async def _scores(service: RegistryService, blob: v1.Blob) -> Scores:
    if blob.bytes > MAX_SCORES_BYTES:
        detail = f"the scores of an evaluation have {blob.bytes} bytes, over the {MAX_SCORES_BYTES} that are compared"
        raise Problem(422, "Too large", detail, field="versions")
    return _SCORES.validate_json(await service.blobs.get(blob))
