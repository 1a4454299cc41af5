"""What the evaluator depends on beyond the kit, and the type under which handlers and endpoints get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fleet_kit.service import Service
from services.evaluator.answer_metrics.metrics import AnswerMetrics
from services.evaluator.batch_client import BatchClient
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.judging.judges import Judges
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.settings import EvaluatorSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """Who answers, who judges, and what is measured beside."""

    models_for: Callable[[str], OpenAIClient]
    """Inference, with access to this domain alone, however far the evaluator's own token reaches."""
    batches_for: Callable[[str], BatchClient]
    """The same for answers that are computed aside."""
    judges: Judges
    metrics: AnswerMetrics
    tests: CodeTests


EvaluatorService: TypeAlias = Service[EvaluatorSettings, Parts]
