"""One evaluation under way, and what all its steps need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet_kit.leased_task import LeasedTask
from services.evaluator import store
from services.evaluator.domain import Evaluation, GoldenVersion
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.judge import Judge
from services.evaluator.parts import EvaluatorService


@dataclass(frozen=True)
class EvaluationRun:
    """An evaluation whose golden data set and judge are pinned; `work` fences every write."""

    evaluation_id: str
    samples: Sequence[GoldenSample]
    version: GoldenVersion
    judge: Judge
    work: LeasedTask
    service: EvaluatorService

    async def stored(self) -> Evaluation:
        """The evaluation as it is stored now."""
        return await stored(self.work, self.evaluation_id)


async def stored(work: LeasedTask, evaluation_id: str) -> Evaluation:
    """Raises LookupError for an evaluation that was not opened."""
    async with work.transaction() as tx:
        found = await store.evaluation(tx.connection, evaluation_id)
    if found is None:
        raise LookupError(f"evaluation {evaluation_id} was not opened")
    return found
