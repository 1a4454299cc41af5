"""Everything that was ever decided about a family, read once, and what it says of a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet_kit.db import Connection
from services.registry.domain import PIPELINE
from services.registry.family import Adapter, Evaluation
from services.registry.policy import Policy
from services.registry.schemas import PolicyBody
from services.registry.store import listing, timeline, versions
from services.registry.store.listing import Trail
from services.registry.timeline.replay import VersionAt, evidence_of, in_effect, policy_at, rollout_at, state_at
from services.registry.timeline.view import DecisionAt, FamilyAt, PolicyAt, ServingAt, VersionAtView

DEFAULT_POLICY = PolicyBody.model_validate(Policy()).model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class History:
    """Versions, audit trail (in the order of its commits) and scores of a family, and its domain's policies."""

    family: str
    domain: str
    adapters: Mapping[str, Adapter]
    trail: Sequence[Trail]
    evaluations: Mapping[str, Sequence[Evaluation]]
    policies: Sequence[Trail]

    @classmethod
    async def read(cls, connection: Connection, family: str, domain: str) -> History:
        """All of it, as it is in the connection's transaction."""
        return cls(
            family,
            domain,
            {one.adapter_id: one for one in await versions.family_adapters(connection, family)},
            await timeline.family_trail(connection, family),
            await timeline.family_evaluations(connection, family),
            await listing.trail(connection, f"policy/{domain}"),
        )

    def at(self, moment: datetime, entries: int) -> FamilyAt:
        """What served, and up to so many entries of the trail before and after."""
        state = state_at(self.trail, moment)
        serving = next((one for one in state.values() if one.active), None)
        number = in_effect(self.trail, moment)
        return FamilyAt.of(
            self.family,
            self.domain,
            moment,
            serving=self._serving(serving) if serving else None,
            policy=self._policy(moment),
            rollout=rollout_at(self.trail, moment),
            versions=[self.version(one) for one in state.values()],
            before=self.trail[max(0, number - entries) : number],
            after=self.trail[number : number + entries],
        )

    def version_at(self, adapter_id: str, moment: datetime) -> ServingAt | VersionAtView | None:
        """One version as it stood, with its activation where it served; None where it was not registered yet."""
        found = state_at(self.trail, moment).get(adapter_id)
        if found is None:
            return None
        return self._serving(found) if found.active else self.version(found)

    def version(self, state: VersionAt) -> VersionAtView:
        adapter = self.adapters[state.adapter_id]
        return VersionAtView(
            adapter_id=state.adapter_id,
            version=str(adapter.version),
            artifact_sha256=adapter.artifact_sha256,
            status=state.status.value,
            active=state.active,
            decision=self._decision(state.decision) if state.decision else None,
        )

    def _serving(self, state: VersionAt) -> ServingAt:
        activation = state.activation
        return ServingAt(
            **dict(self.version(state)),
            since=activation.at if activation else None,
            activated_by=activation.actor if activation else "",
            activated_because=activation.reason if activation else "",
            replaced=state.replaces,
        )

    def _decision(self, decision: Trail) -> DecisionAt:
        evidence = evidence_of(decision, self.evaluations.get(decision.subject, ()))
        recorded = decision.after.get("policy")
        policy = PolicyAt(source="recorded", rules=recorded) if isinstance(recorded, dict) else None
        return DecisionAt.of(decision, PIPELINE, evidence.how, evidence.evaluation, policy or self._policy(decision.at))

    def _policy(self, moment: datetime) -> PolicyAt:
        entry = policy_at(self.policies, moment)
        if entry is None:
            return PolicyAt(source="default", rules=DEFAULT_POLICY)
        return PolicyAt(source="trail", rules=entry.after, set_by=entry.actor, set_at=entry.at)
