"""Any order of registrations, scores and decisions keeps the registry's promises (a hypothesis state machine)."""

from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet_events.v1 import Bump
from services.registry.domain import activate, approve, deactivate, register, reject, score
from services.registry.family import Status
from services.registry.policy import Mode, Policy
from services.registry.transition import Change, DuplicateVersion, NotAllowed, NotTheArtifact
from tests.unit.registry.builders import START, act, evaluation, family, submission


class Consumer:
    """What a follower of the family holds that ignores whatever is older than what it has seen."""

    def __init__(self) -> None:
        self.revision = 0
        self.active = ""

    def consume(self, event: object) -> None:
        revision = event.revision  # type: ignore[attr-defined]
        name = type(event).__name__
        if name not in {"AdapterActivated", "AdapterDeactivated"} or revision <= self.revision:
            return
        self.revision = revision
        self.active = event.adapter.adapter_id if name == "AdapterActivated" else ""  # type: ignore[attr-defined]


class FamilyLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.family = family()
        self.published: list[object] = []
        self.rejected: set[str] = set()
        self.made = 0
        self.scores = 0
        self.digests: dict[str, str] = {}

    def take(self, change: Change) -> None:
        for each in change.events:
            self.published.append(each.event)
        self.family = change.family

    def some(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([adapter.adapter_id for adapter in self.family.versions]))

    @rule(
        bump=st.none() | st.sampled_from(Bump),
        base=st.sampled_from(["base", "base 2"]),
        version=st.none() | st.sampled_from(["1.0.0", "1.0.1", "2.0.0", "0.1.0"]),
        threshold=st.none() | st.floats(0, 100),
    )
    def register(self, bump: Bump | None, base: str, version: str | None, threshold: float | None) -> None:
        self.made += 1
        name = f"artifact {self.made}"
        new = submission(name, bump=bump, base=base, version=version, threshold=threshold)
        try:
            change = register(self.family, new, act())
        except DuplicateVersion as conflict:
            assert version is not None, "a computed version is always free"
            retried = register(self.family, submission(name, version=str(conflict.suggested)), act())
            assert retried.events, "the suggested version is free"
            return
        self.digests[change.adapter_id] = name
        self.take(change)
        assert register(self.family, new, act(minutes=1)).events == (), "once is enough"

    @precondition(lambda self: self.family.versions)
    @rule(
        data=st.data(),
        points=st.floats(0, 100),
        mode=st.sampled_from(Mode),
        regression=st.booleans(),
        late=st.booleans(),
        compared=st.booleans(),
    )
    def score(
        self, data: st.DataObject, points: float, mode: Mode, regression: bool, late: bool, compared: bool
    ) -> None:
        target = self.some(data)
        self.scores += 1
        against = self.family.active.adapter_id if compared and self.family.active else ""
        verdict = evaluation(
            self.digests[target],
            points,
            evaluation_id=f"ev-{self.scores}",
            minutes=-self.scores if late else self.scores,
            regression=regression and not against,
            against=against,
        )
        before = self.family.find(target)
        assert before is not None
        change = score(self.family, target, verdict, Policy(mode), START)
        after = change.family.find(target)
        assert after is not None
        if before.status is not Status.PENDING_REVIEW:
            assert change.events == (), "a decision stands"
        if before.status is not after.status and after.status is Status.APPROVED:
            assert not verdict.judgement.regression
            assert points >= 70
            serving = self.family.active
            if mode is Mode.CONFIDENT and serving is not None and serving.version < before.version:
                assert against == serving.adapter_id
        self.take(change)
        again = score(self.family, target, verdict, Policy(mode), START + timedelta(days=3))
        assert again.events == (), "a score counts once"

    @precondition(lambda self: self.family.versions)
    @rule(data=st.data())
    def score_other_bytes(self, data: st.DataObject) -> None:
        with pytest.raises(NotTheArtifact):
            score(self.family, self.some(data), evaluation("never registered", 100), Policy(), START)

    @precondition(lambda self: self.family.versions)
    @rule(data=st.data(), activate_too=st.booleans(), express=st.booleans(), permitted=st.booleans())
    def approve(self, data: st.DataObject, activate_too: bool, express: bool, permitted: bool) -> None:
        target = self.some(data)
        before = self.family.find(target)
        assert before is not None
        policy = Policy(activate_on_approval=activate_too, allow_approval_without_evaluation=permitted)
        unjudged = before.evaluation is None
        try:
            change = approve(self.family, target, act(), policy, without_evaluation=express)
        except NotAllowed:
            assert target in self.rejected or express != unjudged or (unjudged and not permitted)
            return
        if before.status is Status.PENDING_REVIEW:
            assert express == unjudged, "never evaluated, and so expressly, or neither"
            assert permitted or not unjudged
        self.take(change)

    @precondition(lambda self: self.family.versions)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        self.take(reject(self.family, self.some(data), act()))

    @precondition(lambda self: self.family.versions)
    @rule(data=st.data())
    def activate(self, data: st.DataObject) -> None:
        target = self.some(data)
        adapter = self.family.find(target)
        assert adapter is not None
        try:
            self.take(activate(self.family, target, act()))
        except NotAllowed:
            assert adapter.status is not Status.APPROVED

    @precondition(lambda self: self.family.versions)
    @rule(data=st.data())
    def deactivate(self, data: st.DataObject) -> None:
        self.take(deactivate(self.family, self.some(data), act()))

    @invariant()
    def at_most_one_version_serves(self) -> None:
        assert sum(adapter.active for adapter in self.family.versions) <= 1

    @invariant()
    def only_approved_versions_serve(self) -> None:
        assert all(adapter.status is Status.APPROVED for adapter in self.family.versions if adapter.active)

    @invariant()
    def rejected_is_final(self) -> None:
        now = {a.adapter_id for a in self.family.versions if a.status is Status.REJECTED}
        assert self.rejected <= now
        self.rejected = now

    @invariant()
    def every_event_has_the_next_revision(self) -> None:
        assert [event.revision for event in self.published] == list(range(1, len(self.published) + 1))  # type: ignore[attr-defined]
        assert self.family.revision == len(self.published)

    @invariant()
    def ids_are_unique(self) -> None:
        ids = [adapter.adapter_id for adapter in self.family.versions]
        assert len(ids) == len(set(ids))

    @rule(data=st.data())
    def a_consumer_ends_right_in_any_order_of_arrival(self, data: st.DataObject) -> None:
        consumer = Consumer()
        arrivals = data.draw(st.permutations(self.published)) if len(self.published) < 60 else self.published[::-1]
        for event in [*arrivals, *arrivals[:3]]:
            consumer.consume(event)
        active = self.family.active
        assert consumer.active == (active.adapter_id if active else "")


TestFamilyLife = FamilyLife.TestCase
TestFamilyLife.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
