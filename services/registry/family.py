"""The registry's state: a family of adapter versions and everything known of each. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from fleet_events import v1
from fleet_events.v1 import Bump, Method
from services.registry.imports.source import Origin
from services.registry.policy import Judgement
from services.registry.required import Measured
from services.registry.rollout.state import Rollout, State
from services.registry.version import FIRST, SemVer, VersionBasis, bump_rule


class Status(StrEnum):
    """Where a version stands. Rejected is final: what was rejected never serves."""

    PENDING_REVIEW = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"


def family_id(domain: str, method: Method) -> str:
    """Name of the family, which requests may use as a model name: `domain-method`."""
    return f"{domain}-{method}"


def adapter_id(domain: str, method: Method, version: SemVer) -> str:
    """Unique name of one version: `domain-method-vX.Y.Z` (LA-1.3)."""
    return f"{family_id(domain, method)}-v{version}"


@dataclass(frozen=True, slots=True)
class Preference:
    """How often the judge preferred a version's answers to another's, pair by pair; every other pair is a tie."""

    compared_with: str
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One score that counts for one exact artifact."""

    evaluation_id: str
    scored_at: datetime
    artifact_sha256: str
    golden_dataset_id: str
    golden_sha256: str
    judge: str
    judgement: Judgement
    pass_rate: float
    pass_threshold: float
    samples: int
    passed: int
    criteria: dict[str, float] = field(default_factory=dict)
    confidence: float = 0.95
    report: v1.Blob | None = None
    submission: int = 0
    cut_answers: int = 0
    golden_version: str = ""
    max_tokens: int = 0
    """Longest allowed answer; 0 where the evaluator's release did not tell it."""
    scores: v1.Blob | None = None
    """The samples' scores by sample id; None where the evaluator's release did not store them."""
    metrics: dict[str, Measured] = field(default_factory=dict)
    preference: Preference | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """Where a version that was trained here comes from (AM-1.2, TP-5.1, TP-5.2)."""

    job_id: str
    dataset: v1.Dataset
    configuration: str
    configuration_sha256: str
    report: v1.Blob
    metrics: dict[str, float]
    finished_at: datetime | None
    objective: str = ""
    continued_from: str = ""
    adapter_type: str = ""
    report_page: v1.Blob | None = None
    model_card: v1.Blob | None = None
    exports: tuple[v1.Export, ...] = ()
    reason: str = ""
    """Why it was trained, where a retraining rule asked for it."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A validated artifact submitted as a version of its family."""

    domain: str
    method: Method
    base_model: v1.BaseModel
    artifact: v1.Artifact
    checkpoint: v1.Blob
    checkpoint_config: v1.Blob
    by: str
    version: SemVer | None = None
    bump: Bump | None = None
    description: str = ""
    example_prompts: tuple[str, ...] = ()
    probe: v1.Probe | None = None
    routing: v1.RoutingProfile | None = None
    golden_dataset_id: str = ""
    auto_approve_threshold: float | None = None
    training: Training | None = None
    origin: Origin | None = None
    """Of an imported version, where it came from."""

    @property
    def family(self) -> str:
        return family_id(self.domain, self.method)

    @property
    def version_basis(self) -> VersionBasis:
        """What the bump rule compares."""
        if self.training is None:
            return VersionBasis(self.base_model.revision)
        loss = self.training.metrics.get("eval_loss")
        return VersionBasis(self.base_model.revision, self.training.dataset.dataset_id, loss)


@dataclass(frozen=True, slots=True)
class Adapter:
    """One version: what it is made of, how it was judged, whether it serves."""

    adapter_id: str
    version: SemVer
    submission: Submission
    registered_at: datetime
    status: Status = Status.PENDING_REVIEW
    active: bool = False
    decided_by: str = ""
    decided_at: datetime | None = None
    decision_reason: str = ""
    decided_on: str = ""
    evaluation: Evaluation | None = None
    held: bool = False
    """Its files are kept, also where the retention rules let them go."""
    released_at: datetime | None = None
    """Since when its files may be deleted; it never serves again."""

    @property
    def artifact_sha256(self) -> str:
        """Digest of the Arrow file: what was judged, approved and loaded is compared by it."""
        return self.submission.artifact.blob.sha256

    @property
    def card(self) -> v1.Adapter:
        """What every other service needs to know of this version."""
        submission = self.submission
        return v1.Adapter(
            adapter_id=self.adapter_id,
            family=submission.family,
            domain=submission.domain,
            method=submission.method,
            version=str(self.version),
            base_model=submission.base_model,
            artifact=submission.artifact,
            description=submission.description,
            example_prompts=submission.example_prompts,
            probe=submission.probe,
            routing=submission.routing,
        )


@dataclass(frozen=True, slots=True)
class Family:
    """All versions of one domain and method. `revision` counts the events ever published about them."""

    domain: str
    method: Method
    revision: int = 0
    versions: tuple[Adapter, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    """The one that runs, and those that ended since the family was read."""

    @property
    def family_id(self) -> str:
        return family_id(self.domain, self.method)

    @property
    def next_revision(self) -> int:
        """Revision of the next event about the family."""
        return self.revision + 1

    @property
    def active(self) -> Adapter | None:
        """The version that answers for the family, if any."""
        return next((adapter for adapter in self.versions if adapter.active), None)

    @property
    def rollout(self) -> Rollout | None:
        """The rollout that runs, if any."""
        return next((one for one in self.rollouts if one.state is State.RUNNING), None)

    @property
    def latest(self) -> Adapter | None:
        """The highest version, of any status."""
        return max(self.versions, key=lambda adapter: adapter.version, default=None)

    def find(self, adapter_id: str) -> Adapter | None:
        return next((adapter for adapter in self.versions if adapter.adapter_id == adapter_id), None)

    def with_adapter(self, changed: Adapter) -> Family:
        """The family with this version put in or exchanged."""
        others = tuple(adapter for adapter in self.versions if adapter.adapter_id != changed.adapter_id)
        return replace(self, versions=(*others, changed))

    def with_rollout(self, changed: Rollout) -> Family:
        """The family with this rollout put in or exchanged."""
        others = tuple(one for one in self.rollouts if one.rollout_id != changed.rollout_id)
        return replace(self, rollouts=(*others, changed))

    def next_version(self, submission: Submission) -> SemVer:
        """The version that this submission gets when it names none: after the highest there is (LA-1.1)."""
        latest = self.latest
        if latest is None:
            return FIRST
        return latest.version.bump(
            bump_rule(latest.submission.version_basis, submission.version_basis, submission.bump)
        )
