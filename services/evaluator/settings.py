"""Settings of the evaluator."""

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet_kit.settings import ServiceSettings
from services.evaluator.answer_metrics.command import CommandSettings
from services.evaluator.code_tests.code_settings import CodeSettings
from services.evaluator.judging.settings import JudgeSettings

__all__ = ["REFERENCE", "EvaluatorSettings"]

REFERENCE = "reference"
"""Name of the reference judge where settings choose a judge."""
MOST_MEMBERS = 9
"""Of a panel."""
NAME = r"[a-z0-9][a-z0-9-]{0,39}"


class EvaluationRules(BaseModel):
    """How long answers, exchanges with judges and reports of evaluations are kept once the registry has released their
    version; None is for good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    released_days: float | None = Field(default=None, ge=0)


class GoldenRules(BaseModel):
    """How long a golden version's samples are kept once a newer version has samples; None is for good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    superseded_days: float | None = Field(default=None, ge=0)


class EvaluatorSettings(ServiceSettings):
    """What judging needs beyond what every service needs (environment prefix `LORAFLEET_`)."""

    port: int = 8103
    inference_url: str
    """Where answers, embeddings and likelihoods come from: any server with the OpenAI-compatible endpoints."""
    base_model_name: str
    """Model whose likelihoods are taken for an adapter that does not name its base model."""
    embedding_model_name: str = "all-MiniLM-L6-v2"
    """`model` of /v1/embeddings."""

    generation: Literal["batches", "requests"] = "batches"
    """How answers are generated: as a batch, behind users' requests, where inference computes batches; or request by
    request."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Samples in flight at once."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens. One that is longer is cut, judged as it is, and counted in `cut_answers`."""
    pass_threshold: float = Field(default=70.0, ge=0, le=100)
    """Overall score from which a sample counts as passed (LA-3.3)."""
    ready_seconds: float = Field(default=600.0, gt=0)
    """How long an adapter may be unknown to inference, or loading, before its evaluation has failed."""
    retry_seconds: float = Field(default=2.0, gt=0)
    """Pause before inference is called again."""
    request_timeout: float = Field(default=180.0, gt=0)
    """Seconds one request to inference may take."""

    metrics: tuple[str, ...] = ("exact_match", "token_f1", "rouge_l", "chrf", "json_validity")
    """Metrics of every answer: built in, of inference (`embedding_similarity`, `inverse_perplexity`), or plug-ins."""
    confined_metrics: tuple[str, ...] = ()
    """Those of `metrics` that are plug-ins and run in the sandbox, a process for each answer."""
    metric_commands: dict[str, CommandSettings] = Field(default_factory=dict)
    """Further metrics, each measured by a command (as JSON)."""

    code: CodeSettings = CodeSettings()
    """How code of answers is run where a golden sample has tests (as JSON)."""

    judges: dict[str, JudgeSettings] = Field(default_factory=dict)
    """Language models that judge, by name (as JSON)."""
    panels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Panel → its judges: names of `judges`, or `reference` (as JSON)."""
    judge: str = REFERENCE
    """The judge where the next two name none: a name of `judges` or `panels`, or `reference`."""
    judge_of_domain: dict[str, str] = Field(default_factory=dict)
    """Domain → judge."""
    judge_of_golden: dict[str, str] = Field(default_factory=dict)
    """Golden data set id → judge; comes before the domain's."""
    live_answer_seconds: float = Field(default=3600.0, gt=0)
    """How long an answer of a rollout waits for a judge that is busy or unavailable; then it has no score."""
    judge_keep_days: float = Field(default=400.0, gt=0)
    """How long requests to judges and their raw answers are kept."""
    evaluation_retention: dict[str, EvaluationRules] = Field(default_factory=dict)
    """Domain → how long texts of evaluations are kept, as a JSON object; "*" is for domains that are not named."""
    golden_retention: dict[str, GoldenRules] = Field(default_factory=dict)
    """Domain → how long samples of golden versions are kept, as `evaluation_retention` has it."""
    gc_grace_hours: float = Field(default=24.0, gt=0)
    """Age below which no object is collected."""
    gc_every_hours: float = Field(default=0.0, ge=0)
    """Time between two collections that nobody asked for; 0: only `lorafleet gc --apply` collects."""
    gc_share: float = Field(default=0.25, gt=0, le=1)
    """Share of the service's objects beyond which a collection deletes nothing until somebody confirms the number."""

    @model_validator(mode="after")
    def _knows_its_judges(self) -> Self:
        for name in (*self.judges, *self.panels):
            if name == REFERENCE or not re.fullmatch(NAME, name):
                raise ValueError(
                    f"judges or panels: {name!r}: a name has up to 40 of a-z, 0-9 and -, and is not {REFERENCE!r}"
                )
        for name, members in self.panels.items():
            if name in self.judges:
                raise ValueError(f"panels: {name!r} is the name of a judge too; choose another")
            if not 1 <= len(set(members)) == len(members) <= MOST_MEMBERS:
                raise ValueError(f"panels.{name}: expected 1 to {MOST_MEMBERS} judges, each once")
            if unknown := [member for member in members if member != REFERENCE and member not in self.judges]:
                raise ValueError(
                    f"panels.{name}: {unknown[0]!r} is no judge; one of reference, {', '.join(self.judges)}"
                )
        known = {REFERENCE, *self.judges, *self.panels}
        chosen = [("judge", self.judge), *_chosen("judge_of_domain", self.judge_of_domain)]
        for field, name in (*chosen, *_chosen("judge_of_golden", self.judge_of_golden)):
            if name not in known:
                raise ValueError(f"{field}: {name!r} is no judge; one of {', '.join(sorted(known))}")
        return self

    def evaluation_rules(self, domain: str) -> EvaluationRules:
        """A domain's rules, else those of "*", else the default."""
        return self.evaluation_retention.get(domain) or self.evaluation_retention.get("*") or EvaluationRules()

    def golden_rules(self, domain: str) -> GoldenRules:
        """A domain's rules, else those of "*", else the default."""
        return self.golden_retention.get(domain) or self.golden_retention.get("*") or GoldenRules()

    def judge_for(self, domain: str, dataset_id: str) -> str:
        """Name of who judges with this golden data set in this domain."""
        return self.judge_of_golden.get(dataset_id) or self.judge_of_domain.get(domain) or self.judge


def _chosen(field: str, names: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"{field}.{key}", name) for key, name in names.items()]
