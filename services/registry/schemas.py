"""What the registry takes and answers over HTTP, beside the versions themselves (adapter_view.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fleet_events.text import Text
from fleet_events.v1 import PersonalDataAction, RecordAnswers
from services.registry.family import Status
from services.registry.migrating.rule import MigrationRule
from services.registry.policy import CRITERIA, Mode, Policy
from services.registry.rollout.schemas import DeliveryBody
from services.registry.store.listing import DomainCounts, DomainService, Refusal, Trail
from services.registry.view import View


class TrailView(View):
    """One line of the audit trail."""

    subject: str
    at: datetime
    actor: str
    action: str
    reason: str
    before: dict[str, object]
    after: dict[str, object]
    revision: int


class AuditView(View):
    """The audit trail, oldest first."""

    entries: list[TrailView]

    @classmethod
    def of(cls, trail: Sequence[Trail]) -> Self:
        return cls(entries=[TrailView.model_validate(line) for line in trail])


class RefusalView(View):
    """A finished training that could not be registered, and why."""

    event_id: str
    job_id: str
    domain: str
    artifact_sha256: str
    field: str
    reason: str
    at: datetime


class RefusalList(View):
    """Refusals, newest first."""

    refusals: list[RefusalView]

    @classmethod
    def of(cls, refusals: Sequence[Refusal]) -> Self:
        return cls(refusals=[RefusalView.model_validate(one) for one in refusals])


class Seen(BaseModel):
    """How a version stood when a human looked at it."""

    model_config = ConfigDict(extra="forbid")

    status: Status
    active: bool


class Reason(BaseModel):
    """Why a human decides as they do."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=2000)
    seen: Seen | None = Field(
        default=None, description="Refuse the decision (409) where the version no longer stands like this"
    )


class Approval(Reason):
    """Why a human approves a version, and whether that is to count for one that was never evaluated."""

    without_evaluation: bool = Field(
        default=False,
        description="Approve a version that has no score: the domain's policy has to permit it; takes a `reason`",
    )


class MigrationRuleBody(BaseModel):
    """How versions get from one base model to another."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, frozen=True)

    old: Text = Field(min_length=1, max_length=200, description="Adapter id, base model, revision of it, or *")
    new: Text = Field(min_length=1, max_length=200, description="Base model, revision of it, or *")
    strategy: Literal["convert", "retrain", "distil"]


class PolicyBody(BaseModel):
    """A domain's policy: what is approved, and which answers may become training data."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    mode: Mode = Mode.CONFIDENT
    approve_at: float = Field(default=85.0, ge=0, le=100, allow_inf_nan=False)
    reject_below: float = Field(default=70.0, ge=0, le=100, allow_inf_nan=False)
    activate_on_approval: bool = True
    allow_lower_threshold: bool = True
    forbid_own_approval: bool = False
    allow_approval_without_evaluation: bool = Field(
        default=False, description="Whether a human may approve a version that has no score (`without_evaluation`)"
    )
    minimum_samples: int = Field(
        default=20, ge=1, le=1_000_000, description="Fewest scored samples on which `confident` approves"
    )
    smallest_relevant_difference: float = Field(
        default=2.0,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="Score points from which a significant fall blocks; a tenth of it for a criterion",
    )
    blocking_criteria: tuple[str, ...] = Field(default=CRITERIA, description="Criteria whose fall blocks", max_length=5)
    minimum_agreement: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="Agreement of judge and people (Krippendorff's alpha) below which no score approves; null: any",
    )
    record_answers: RecordAnswers = Field(
        default=RecordAnswers.NONE,
        description="Answers that may become training data: none, rated (those that get feedback), sampled or all",
    )
    record_fraction: float = Field(
        default=0.0, ge=0, le=1, allow_inf_nan=False, description="Share of the requests where `sampled`, else 0"
    )
    personal_data: PersonalDataAction = Field(
        default=PersonalDataAction.MASK,
        description="Before an answer is recorded: personal data is masked, or an answer with any is dropped",
    )

    minimum_metrics: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]{0,62}$")],
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)],
    ] = Field(
        default_factory=dict,
        max_length=50,
        description="Metric → value from 0 to 1 that it has to reach (its interval's lower end in `confident`)",
    )
    minimum_win_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How often answers have to be preferred to those of the version that is replaced; null: any",
    )
    comparison_required: bool | None = Field(
        default=None,
        description="Whether a version that replaces another waits for a human where the two cannot be compared "
        "fairly; null: in `confident` alone",
    )

    update_minimum_improvement: float = Field(
        default=2.0,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="Per cent of the running version's score: an update that is better by no more is not recommended",
    )
    apply_updates: bool = Field(default=False, description="Whether a recommended update is activated by itself")

    migration_strategies: tuple[MigrationRuleBody, ...] = Field(
        default=(), max_length=100, description="How versions get to other base models; the first rule that fits counts"
    )
    follow_base_model: bool = Field(
        default=False, description="Whether active versions are migrated when their base model has a new revision"
    )

    delivery: DeliveryBody = Field(
        default_factory=DeliveryBody, description="How an approved version takes over from the active one"
    )

    def policy(self) -> Policy:
        """The domain's value; raises InvalidPolicy and InvalidRules."""
        rules = tuple(MigrationRule(rule.old, rule.new, rule.strategy) for rule in self.migration_strategies)
        return Policy(**self.model_dump() | {"migration_strategies": rules, "delivery": self.delivery.rules()})


class DomainStatistics(View):
    """Counts of one domain."""

    domain: str
    families: int = 0
    versions: int = 0
    pending_review: int = 0
    approved: int = 0
    rejected: int = 0
    active: int = 0
    average_score: float | None = None
    answers: int = 0
    completion_tokens: int = 0
    ratings: int = 0
    average_rating: float | None = None


class Statistics(View):
    """Counts of everything the caller reaches; domain '' is the base model without an adapter."""

    families: int
    versions: int
    active: int
    answers: int
    ratings: int
    by_status: dict[str, int]
    domains: list[DomainStatistics]

    @classmethod
    def of(cls, counts: Sequence[DomainCounts], service: Sequence[DomainService]) -> Self:
        merged: dict[str, dict[str, object]] = {one.domain: asdict(one) for one in counts}
        for other in service:
            merged.setdefault(other.domain, {}).update(asdict(other))
        domains = [DomainStatistics.model_validate(one) for _, one in sorted(merged.items())]
        return cls(
            families=sum(one.families for one in domains),
            versions=sum(one.versions for one in domains),
            active=sum(one.active for one in domains),
            answers=sum(one.answers for one in domains),
            ratings=sum(one.ratings for one in domains),
            by_status={
                "pending_review": sum(one.pending_review for one in domains),
                "approved": sum(one.approved for one in domains),
                "rejected": sum(one.rejected for one in domains),
            },
            domains=domains,
        )
