"""The answers of an evaluation, computed behind users' requests: as one batch, where inference computes batches.

The batch belongs to the evaluation: taken up again after a crash, the evaluation waits for the same one. What the batch
leaves without an answer is requested sample by sample, and so is everything of a server without batches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import structlog

from services.evaluator.batch_client import Batch, BatchClient, NoBatches
from services.evaluator.domain import EvaluationFailure
from services.evaluator.evaluation_run import EvaluationRun
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.openai_client import Answer, Unready

log = structlog.get_logger()

FIRST_LOOK, LONGEST_LOOK, SHARE = 0.1, 2.0, 0.1
"""Seconds between two looks at a batch: a share of the time that it has taken."""


@dataclass(frozen=True)
class Generated:
    """Answers by sample id, and the batch that they are of."""

    answers: Mapping[str, Answer] = field(default_factory=dict)
    batch: Batch | None = None


async def generate(run: EvaluationRun, samples: Sequence[GoldenSample]) -> Generated:
    """Answers to these samples as far as a batch gives them; raises Unready and EvaluationFailure."""
    settings = run.service.settings
    if settings.generation == "requests" or not samples:
        return Generated()
    evaluation = await run.stored()
    client = run.service.parts.batches_for(evaluation.domain)
    try:
        batch = await client.find(run.evaluation_id, evaluation.created_at)
        if batch is None:
            await client.check_model(evaluation.adapter_id)
            prompts = {one.sample_id: one.messages(run.version.context_use) for one in samples}
            batch = await client.create(run.evaluation_id, evaluation.adapter_id, prompts, evaluation.max_tokens)
            log.info("batch_of_evaluation", evaluation_id=run.evaluation_id, batch_id=batch.id, samples=len(samples))
        batch = await _ended(run, client, batch)
        answers = await client.answers(batch)
    except NoBatches as reason:
        log.info("answers_are_requested_one_by_one", evaluation_id=run.evaluation_id, reason=str(reason))
        return Generated()
    if missing := [one.sample_id for one in samples if one.sample_id not in answers]:
        log.warning("answers_missing_in_batch", batch_id=batch.id, status=batch.status, missing=len(missing))
    return Generated(answers, batch)


async def _ended(run: EvaluationRun, client: BatchClient, batch: Batch) -> Batch:
    """The batch once it computes no more. Raises NoBatches for one that nobody begins."""
    begun, computed = time.monotonic(), batch.computed
    while not batch.ended:
        taken = time.monotonic() - begun
        if batch.in_progress_at is None and taken > run.service.settings.ready_seconds:
            await client.cancel(batch.id)
            raise NoBatches(f"batch {batch.id} was not begun within {run.service.settings.ready_seconds:g} s")
        await asyncio.sleep(min(max(FIRST_LOOK, SHARE * taken), LONGEST_LOOK))
        batch = await client.get(batch.id)
        if batch.computed > computed:
            computed = batch.computed
            async with run.work.transaction() as tx:
                await run.work.progress(tx)
    return batch


async def forget(run: EvaluationRun, generated: Generated) -> None:
    """Delete the files of a batch whose answers are judged; what cannot be deleted expires by itself."""
    if generated.batch is None:
        return
    evaluation = await run.stored()
    try:
        await run.service.parts.batches_for(evaluation.domain).delete_files(generated.batch)
    except (httpx.HTTPError, Unready, EvaluationFailure) as error:
        log.warning("batch_files_left", batch_id=generated.batch.id, reason=repr(error))
