"""Opening an evaluation: who is judged, pinned to the registry's data."""

from __future__ import annotations

from fleet_kit.db import Connection
from fleet_kit.errors import Refused
from services.evaluator import store
from services.evaluator.settings import EvaluatorSettings


async def open_requested(
    connection: Connection,
    *,
    evaluation_id: str,
    adapter_id: str,
    domain: str,
    golden: str,
    requested_by: str,
    settings: EvaluatorSettings,
) -> None:
    """Queue the evaluation with the digest and base model that are to be judged.

    A version not yet known from the registry is pinned by its first answer. Raises Refused where the request
    names another domain than the version's, or an evaluation id that judges another version.
    """
    known = await store.candidate(connection, adapter_id)
    if known and known["domain"] != domain:
        raise Refused(f"domain: {domain!r}, but {adapter_id} belongs to {known['domain']!r}")
    await store.open_evaluation(
        connection,
        evaluation_id=evaluation_id,
        adapter_id=adapter_id,
        family=known["family"] if known else adapter_id.rpartition("-v")[0],
        domain=domain,
        artifact_sha256=known["artifact_sha256"] if known else "",
        base_model=known["base_model"] if known else settings.base_model_name,
        wanted_dataset=golden,
        # Who that is in full is pinned once the golden data set is known, see run.py.
        judge=settings.judge_for(domain, golden.partition("@")[0]),
        max_tokens=settings.max_tokens,
        pass_threshold=settings.pass_threshold,
        requested_by=requested_by,
    )
    opened = await store.evaluation(connection, evaluation_id)
    if opened is None or (opened.adapter_id, opened.domain) != (adapter_id, domain):
        raise Refused(f"evaluation_id: {evaluation_id!r} already judges another version; choose another id")
