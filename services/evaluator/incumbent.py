"""The active version judged again, where none of its evaluations can be compared with a candidate's.

Two scores are compared only on the same golden content, under the same judge and the same longest answer. Where one of
these has changed since the active version was judged, it answers and is judged once more beside the candidate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from fleet_kit.errors import NotYet
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.evaluator import domain, store
from services.evaluator.domain import Evaluation, EvaluationFailure
from services.evaluator.openai_client import Unready
from services.evaluator.settings import EvaluatorSettings

log = structlog.get_logger()


async def judge_again(
    candidate: Evaluation,
    work: LeasedTask,
    settings: EvaluatorSettings,
    *,
    score: Callable[[str], Awaitable[None]],
    publish_failure: Callable[[Transaction, str, str], Awaitable[None]],
) -> None:
    """See to it that the active version of the candidate's family has a score to compare with, if one can be had.

    `score` takes an evaluation to its score; `publish_failure` ends one without. A version that cannot be judged
    leaves the candidate without a comparison. Raises NotYet, for a bounded time, while inference cannot serve it.
    """
    evaluation_id = await _open(candidate, work)
    if evaluation_id is None:
        return
    try:
        await score(evaluation_id)
    except EvaluationFailure as failure:
        async with work.transaction() as tx:
            await publish_failure(tx, evaluation_id, str(failure))
    except Unready as reason:
        async with work.transaction() as tx:
            await store.set_waiting(tx.connection, evaluation_id, waiting=True)
            waiting = await store.evaluation(tx.connection, evaluation_id)
            limit = settings.ready_seconds
            if waiting is None or not domain.waited_out(waiting, datetime.now(UTC), timedelta(seconds=limit)):
                again = NotYet(str(reason), after=settings.retry_seconds)
            else:
                again = None
                await publish_failure(tx, evaluation_id, f"inference could not serve it within {limit:g} s: {reason}")
        if again is not None:
            raise again from reason


async def why_not_compared(candidate: Evaluation, rival: Evaluation | None, tx: Transaction) -> str:
    """Why no score of the active version is comparable with the candidate's; empty where one is, or none is needed."""
    active = await store.active(tx.connection, candidate.family)
    if rival is not None or active is None or active["adapter_id"] == candidate.adapter_id:
        return ""
    if candidate.compares_for:
        return ""
    again = await store.evaluation(tx.connection, _again(candidate, active["adapter_id"]))
    before = await store.newest_scored(tx.connection, active["adapter_id"])
    name = active["adapter_id"]
    changed = domain.differing(candidate, before) if before else "it was never judged"
    failed = again.reason if again and again.state == "failed" else "it could not be judged again"
    return f"{name} has no comparable score ({changed}), and judging it again failed: {failed}"


def _again(candidate: Evaluation, active: str) -> str:
    """Id of the evaluation that judges the active version again for the candidate."""
    name = f"{candidate.evaluation_id}\n{active}".encode()
    return f"again:{hashlib.sha256(name).hexdigest()[:32]}"


async def _open(candidate: Evaluation, work: LeasedTask) -> str | None:
    """The evaluation in which the active version is to be judged again; None where there is nothing to do."""
    async with work.transaction() as tx:
        active = await store.active(tx.connection, candidate.family)
        if active is None or active["adapter_id"] == candidate.adapter_id:
            return None
        if await store.rival(tx.connection, candidate) is not None:
            return None
        evaluation_id = _again(candidate, active["adapter_id"])
        await store.open_evaluation(
            tx.connection,
            evaluation_id=evaluation_id,
            adapter_id=active["adapter_id"],
            family=candidate.family,
            domain=candidate.domain,
            artifact_sha256=active["artifact_sha256"],
            base_model=active["base_model"],
            wanted_dataset=f"{candidate.dataset_id}@{candidate.version}",
            judge=candidate.judge,
            max_tokens=candidate.max_tokens,
            pass_threshold=candidate.pass_threshold,
            requested_by=candidate.requested_by,
            compares_for=candidate.evaluation_id,
        )
        await store.begin(
            tx.connection,
            evaluation_id,
            dataset_id=candidate.dataset_id or "",
            version=candidate.version or "",
            golden_sha256=candidate.golden_sha256 or "",
            total=candidate.total,
            judge=candidate.judge,
        )
        opened = await store.evaluation(tx.connection, evaluation_id)
    if opened is None or opened.over:
        return None  # it failed before
    log.info("active_version_judged_again", evaluation_id=evaluation_id, adapter_id=opened.adapter_id)
    return evaluation_id
