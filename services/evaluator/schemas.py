"""What the evaluator takes and answers over HTTP about evaluations; golden/ and judging/ have their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.evaluator.judging.schemas import Agrees


class NewEvaluation(BaseModel):
    """Which version to judge, and with which golden data set (`id` or `id@version`; empty: the domain's newest)."""

    model_config = ConfigDict(extra="forbid")

    adapter_id: str = Field(min_length=1, max_length=200)
    golden_dataset_id: str = Field(default="", max_length=140)


class Accepted(BaseModel):
    evaluation_id: str


class EvaluationView(BaseModel):
    """An evaluation. Scores are on 0–100, criteria on 0–10, rates 0 to 1; null until it is scored.

    `decided` of the samples have a score. `submission` is the family's try at this golden data set since a version was
    activated. `compares_for` names the evaluation that this one only serves to compare with.
    """

    evaluation_id: str
    adapter_id: str
    family: str
    domain: str
    state: str
    done: int
    total: int
    score: float | None
    ci_low: float | None
    ci_high: float | None
    confidence: float | None
    pass_rate: float | None
    pass_rate_low: float | None
    pass_rate_high: float | None
    passed: int | None
    decided: int | None
    submission: int | None
    cut_answers: int | None
    undecided: int | None
    unjudged: int | None
    pass_threshold: float
    max_tokens: int
    """Of an answer at most."""
    criteria: dict[str, float]
    by_difficulty: dict[str, float]
    metrics: dict[str, dict[str, Any]]
    """By name: mean (value, low, high; 0 to 1), samples measured and missing."""
    judge: str
    judging: dict[str, Any]
    """Who judged (name, version, model, digest of the prompt, parameters) and what it took: requests, tokens, cost,
    seconds of all requests."""
    artifact_sha256: str
    golden_dataset_id: str
    golden_version: str | None
    golden_sha256: str | None
    regression: bool
    comparison: dict[str, Any] | None
    preference: dict[str, Any] | None
    """Whose answers the judge preferred, pair by pair in both orders: wins, losses, ties, win rate with its interval,
    consistency of the orders and position bias."""
    report: dict[str, Any] | None
    reason: str
    requested_by: str
    compares_for: str
    created_at: datetime
    finished_at: datetime | None


class SampleView(BaseModel):
    """One judged sample."""

    sample_id: str
    system: str
    history: list[dict[str, str]]
    """Turns before the question, as `role` and `content`."""
    prompt: str
    question: str
    """What the version was asked: the prompt, after its context where the golden data set gives that to the model."""
    expected_output: str
    difficulty: str
    answer: str
    finish_reason: str
    overall: float | None
    passed: bool
    standing: str
    """decided, undecided (an estimate), or unjudged (no score)."""
    why: str
    vetoes: list[str]
    """Must-rules that it breaks."""
    verdicts: dict[str, dict[str, Any]]
    evidence: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    """By name: value from 0 to 1, or null and the fault."""
    pair: dict[str, Any] | None = None
    """Beside the answer of the version compared with: outcome, consistent, both orders' verdicts."""
    generation_id: str


class EvaluationDetail(EvaluationView):
    results: list[SampleView]
    agreement: Agrees
    """How far this judge agrees with people in this domain."""


class History(BaseModel):
    evaluations: list[EvaluationView]
