"""What the registry answers: versions of adapters and their provenance."""

from __future__ import annotations

from pydantic import Field

from lorafleet.responses.reply import Reply


class Withdrawal(Reply):
    """Where a decision to take a version out of service has been applied."""

    published: bool = True
    pending: tuple[str, ...] = ()


class Adapter(Reply):
    """A version of an adapter, as the registry holds it."""

    adapter_id: str
    family: str = ""
    domain: str = ""
    method: str = ""
    version: str = ""
    status: str = ""
    active: bool = False
    base_model: dict[str, object] = Field(default_factory=dict)
    metrics: dict[str, object] = Field(default_factory=dict)
    own_metrics: dict[str, dict[str, object]] = Field(default_factory=dict)
    withdrawal: Withdrawal | None = None
    held: bool = False


Link = dict[str, object]


class Provenance(Reply):
    """The digest chain of a version; a link that does not exist (yet) is null."""

    adapter_id: str
    origin: Link | None = None
    dataset: Link | None = None
    configuration: Link | None = None
    base_model: Link
    checkpoint: Link
    artifact: Link
    evaluation: Link | None = None
    approval: Link | None = None
    loaded: list[Link] = Field(default_factory=list)
    answers: Link = Field(default_factory=dict)


class FamilyLine(Reply):
    """A family and its active version; what that has is null, or 0, where none is active."""

    family: str
    domain: str = ""
    method: str = ""
    versions: int = 0
    pending_review: int = 0
    active_id: str | None = None
    active_version: str | None = None
    score: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    answers: int = 0
    ratings: int = 0
    average_rating: float | None = None
    replicas: int = 0
    newest_id: str = ""
    newest_at: str = ""


class FamilyPage(Reply):
    """A page of families, and how many there are in all."""

    families: list[FamilyLine] = Field(default_factory=list)
    total: int = 0


class DecisionAt(Reply):
    """Who decided about a version, on what score and under which policy."""

    action: str
    by: str
    at: str = ""
    reason: str = ""
    evidence: str = ""
    evaluation: Link | None = None
    policy: Link = Field(default_factory=dict)


class VersionAt(Reply):
    """A version as it stood at a moment."""

    adapter_id: str
    status: str = ""
    active: bool = False
    decision: DecisionAt | None = None


class ServingAt(VersionAt):
    """The version that served at a moment."""

    since: str | None = None
    activated_by: str = ""
    activated_because: str = ""
    replaced: str = ""


class FamilyAt(Reply):
    """A family at a moment."""

    family: str
    time: str = ""
    serving: ServingAt | None = None
    policy: Link = Field(default_factory=dict)
    rollout: Link | None = None
    versions: list[VersionAt] = Field(default_factory=list)
    before: list[Link] = Field(default_factory=list)
    after: list[Link] = Field(default_factory=list)


class AnsweringAdapter(Reply):
    """An adapter that took part in an answer: its version, then those that its training continued."""

    adapter_id: str
    weight: float = 1.0
    chain: list[Provenance] = Field(default_factory=list)
    unknown: list[str] = Field(default_factory=list)
    when_answered: ServingAt | None = None
    """Without `since` where it did not answer for its family then."""


class AnswerProvenance(Reply):
    """The adapters that gave an answer, and what cannot be followed back."""

    generation_id: str
    answered_at: str = ""
    requested_model: str = ""
    routed: str = ""
    fallback: str = ""
    base_model: Link
    adapters: list[AnsweringAdapter] = Field(default_factory=list)
    unknown: list[str] = Field(default_factory=list)


class ComparedVersion(Reply):
    """A version of a comparison, in numbers."""

    adapter_id: str
    rating: dict[str, float | None] = Field(default_factory=dict)
    usage: dict[str, object] = Field(default_factory=dict)
    metrics: dict[str, dict[str, object]] = Field(default_factory=dict)


class Tested(Reply):
    """A measure of two versions, first minus second, with its test."""

    measure: str
    test: str = ""
    samples: int = 0
    difference: float
    ci_low: float | None = None
    ci_high: float | None = None
    corrected: float = 1.0
    significant: bool = False


class ComparedPair(Reply):
    """Two versions of a comparison."""

    first: str
    second: str
    fair: bool = False
    why_not: str = ""
    measures: list[Tested] = Field(default_factory=list)
    preferences: dict[str, dict[str, float | None]] = Field(default_factory=dict)


class VersionComparison(Reply):
    """Versions against one another."""

    versions: list[ComparedVersion]
    differing: dict[str, dict[str, object]] = Field(default_factory=dict)
    pairs: list[ComparedPair] = Field(default_factory=list)
    preferences: dict[str, dict[str, object]] = Field(default_factory=dict)
    significant: list[str] = Field(default_factory=list)
    level: float = 0.05


class AuditLine(Reply):
    """Who did what, when and why."""

    at: str = ""
    actor: str = ""
    action: str = ""
    reason: str = ""
    before: dict[str, object] = Field(default_factory=dict)
    after: dict[str, object] = Field(default_factory=dict)


class Refusal(Reply):
    """A finished training that could not be registered."""

    job_id: str = ""
    domain: str = ""
    field: str = ""
    reason: str = ""
    at: str = ""


class DomainStatistics(Reply):
    """Counts of one domain; '' is the base model without an adapter."""

    domain: str
    versions: int = 0
    pending_review: int = 0
    approved: int = 0
    rejected: int = 0
    active: int = 0
    average_score: float | None = None
    answers: int = 0
    ratings: int = 0
    average_rating: float | None = None


class Statistics(Reply):
    """Counts of everything that the caller reaches."""

    families: int = 0
    versions: int = 0
    active: int = 0
    answers: int = 0
    ratings: int = 0
    domains: list[DomainStatistics] = Field(default_factory=list)


class UsageLine(Reply):
    """What one caller took of one domain's adapters in a month; domain '' is the base model."""

    domain: str
    caller: str
    answers: int
    prompt_tokens: int
    completion_tokens: int


class UsageReport(Reply):
    """A month, as 2026-12."""

    month: str
    usage: list[UsageLine] = Field(default_factory=list)


class Update(Reply):
    """A version that runs, and the best one available for it."""

    running: str
    active: bool = False
    held_by: tuple[str, ...] = ()
    available: str = ""
    recommended: bool = False
    why: str = ""


class Migration(Reply):
    """A version on its way to another base model."""

    migration_id: str
    adapter_id: str = ""
    strategy: str = ""
    to_base_model: str = ""
    to_revision: str = ""
    state: str = ""
    job_id: str | None = None
    new_adapter_id: str | None = None
    error: str = ""


class Evidence(Reply):
    """What a rollout's step found for one metric."""

    metric: str
    candidate_outcomes: int = 0
    incumbent_outcomes: int = 0
    candidate: float | None = None
    incumbent: float | None = None
    ci_low: float = 0.0
    ci_high: float = 0.0
    log_evidence: float = 0.0
    line: float = 0.0


class Rollout(Reply):
    """A candidate on its way to take over from its family's active version."""

    rollout_id: str
    mode: str
    candidate_id: str
    incumbent_id: str
    state: str
    step: int = 0
    steps: int = 1
    share: float = 0.0
    paused: bool = False
    next: str = ""
    evidence: list[Evidence] = Field(default_factory=list)


class FamilyRollouts(Reply):
    """The newest rollout of a family, if there was one."""

    family: str
    rollout: Rollout | None = None
