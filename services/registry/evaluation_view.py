"""A score as the registry answers it over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Self

from pydantic import Field

from services.registry.family import Evaluation
from services.registry.view import BlobView, View


class ComparisonView(View):
    """Against another version on the same samples, new minus old: points 0 to 100, criteria 0 to 10."""

    compared_with: str
    samples: int
    difference: float
    ci_low: float
    ci_high: float
    fallen: dict[str, float] = Field(description="Criteria that fell significantly, with their mean difference")


class MeasuredView(View):
    """Mean of a metric over the samples that it was measured on, 0 to 1, with its interval."""

    value: float
    ci_low: float
    ci_high: float
    samples: int


class PreferenceView(View):
    """How often the judge preferred its answers to those of another version."""

    compared_with: str
    wins: int
    losses: int
    ties: int


class EvaluationView(View):
    """A score; points 0 to 100, pass rate 0 to 1, criteria 0 to 10."""

    evaluation_id: str
    scored_at: datetime
    artifact_sha256: str
    golden_dataset_id: str
    golden_sha256: str
    judge: str
    score: float
    ci_low: float
    ci_high: float
    confidence: float
    regression: bool
    pass_rate: float
    pass_threshold: float
    samples: int
    decided: int = Field(description="Samples that have a score; the interval counts the others as missing evidence")
    passed: int
    submission: int = Field(description="The family's try at this golden data set since a version was activated")
    cut_answers: int = Field(description="Answers that were cut at the longest allowed length")
    criteria: dict[str, float]
    comparison: ComparisonView | None
    not_compared: str = Field(description="Why there is no comparison with the version that it would replace")
    golden_version: str
    max_tokens: int = Field(description="Longest allowed answer; 0 where it is not known")
    metrics: dict[str, MeasuredView] = Field(description="`golden_dataset_accuracy` and what the evaluator measures")
    preference: PreferenceView | None
    report: BlobView | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        return cls.model_validate(_flat(evaluation))


def _flat(evaluation: Evaluation) -> dict[str, Any]:
    flat = {name: getattr(evaluation, name) for name in EvaluationView.model_fields if hasattr(evaluation, name)}
    # What was scored before samples could be undecided has no such count.
    return flat | asdict(evaluation.judgement) | {"decided": evaluation.judgement.decided or evaluation.samples}
