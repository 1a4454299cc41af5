"""The state of a family at a moment, as the registry answers it over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import Field

from services.registry.evaluation_view import EvaluationView
from services.registry.family import Evaluation
from services.registry.schemas import TrailView
from services.registry.store.listing import Trail
from services.registry.view import View


class PolicyAt(View):
    """The rules of the domain. `source`: recorded with the decision, from the policy's trail, or nobody had set any."""

    source: Literal["recorded", "trail", "default"]
    rules: dict[str, object]
    set_by: str = ""
    set_at: datetime | None = None


class DecisionAt(View):
    """Who decided, when, why, on what score and under which policy."""

    action: str
    by: str
    automatic: bool = Field(description="The policy decided, not a person")
    at: datetime
    reason: str
    evidence: str = Field(
        description="recorded: the trail names the evaluation; inferred: the newest score before the decision, where "
        "the trail of an older release names none; none: there was no score"
    )
    evaluation: EvaluationView | None
    policy: PolicyAt

    @classmethod
    def of(cls, entry: Trail, pipeline: str, evidence: str, evaluation: Evaluation | None, policy: PolicyAt) -> Self:
        return cls(
            action=entry.action,
            by=entry.actor,
            automatic=entry.actor == pipeline,
            at=entry.at,
            reason=entry.reason,
            evidence=evidence,
            evaluation=EvaluationView.of(evaluation) if evaluation else None,
            policy=policy,
        )


class VersionAtView(View):
    """A version as it stood."""

    adapter_id: str
    version: str
    artifact_sha256: str
    status: str
    active: bool
    decision: DecisionAt | None


class ServingAt(VersionAtView):
    """The version that answered for the family."""

    since: datetime | None
    activated_by: str
    activated_because: str
    replaced: str = Field(description="The version that stopped for it; empty where none did")


class FamilyAt(View):
    """A family at a moment. `before` and `after` are the nearest entries of its audit trail, oldest first."""

    family: str
    domain: str
    time: datetime
    serving: ServingAt | None
    policy: PolicyAt = Field(description="Of the domain at that moment")
    rollout: dict[str, object] | None = Field(
        description="The rollout that ran: its candidate answered `share` of the callers, the active version the rest"
    )
    versions: list[VersionAtView]
    before: list[TrailView]
    after: list[TrailView]

    @classmethod
    def of(
        cls,
        family: str,
        domain: str,
        time: datetime,
        *,
        serving: ServingAt | None,
        policy: PolicyAt,
        rollout: dict[str, object] | None,
        versions: list[VersionAtView],
        before: Sequence[Trail],
        after: Sequence[Trail],
    ) -> Self:
        return cls(
            family=family,
            domain=domain,
            time=time,
            serving=serving,
            policy=policy,
            rollout=rollout,
            versions=versions,
            before=[TrailView.model_validate(one) for one in before],
            after=[TrailView.model_validate(one) for one in after],
        )
