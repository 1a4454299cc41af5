"""What the evaluator depends on beyond the kit, and the type under which handlers and endpoints get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fleet_kit.service import Service
from services.evaluator.domain import Evaluation
from services.evaluator.judging.judge import Judge
from services.evaluator.judging.pairwise_judge import PairwiseJudge
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.settings import EvaluatorSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """Who answers and who judges."""

    models_for: Callable[[str], OpenAIClient]
    """Inference, with access to this domain alone, whatever the evaluator's own token reaches."""
    judge_for: Callable[[Evaluation, str], Judge]
    """The judge of this evaluation with the golden data set of this id."""
    pairwise_for: Callable[[Evaluation, str], PairwiseJudge | None]
    """The same, for pairs of two versions' answers; None where the judge compares none."""


EvaluatorService: TypeAlias = Service[EvaluatorSettings, Parts]
