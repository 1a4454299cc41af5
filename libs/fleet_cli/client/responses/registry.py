"""What the registry answers: versions of adapters and their provenance."""

from __future__ import annotations

from pydantic import Field

from fleet_cli.client.responses.reply import Reply


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
    metrics: dict[str, object] = Field(default_factory=dict)
    withdrawal: Withdrawal | None = None


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


class AnsweringAdapter(Reply):
    """An adapter that took part in an answer: its version, then those that its training continued."""

    adapter_id: str
    weight: float = 1.0
    chain: list[Provenance] = Field(default_factory=list)
    unknown: list[str] = Field(default_factory=list)


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
