"""A rollout from its candidate's approval to its end: what starts it, moves it and ends it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet_events import Event, v1
from fleet_events.v1 import DeliveryMode, RolloutArm, RolloutMetric
from services.registry import domain
from services.registry.family import Family
from services.registry.policy import Policy
from services.registry.rollout import transitions, verdict
from services.registry.rollout.rules import Delivery, InvalidRules
from services.registry.rollout.state import Rollout, State
from services.registry.rollout.verdict import Counted, Decision
from services.registry.transition import Change, NotAllowed
from tests.unit.registry.builders import START, act, family, submission

CANARY = Delivery(mode=DeliveryMode.CANARY, minimum_requests=50, minimum_seconds=60)
POLICY = Policy(allow_approval_without_evaluation=True, delivery=CANARY)
FIRST, SECOND, THIRD = (f"tax-law-lora-v1.0.{patch}" for patch in range(3))


def approve(held: Family, name: str, policy: Policy = POLICY, base: str = "base") -> Change:
    made = domain.register(held, submission(name, base=base, bump=v1.Bump.PATCH), act())
    return domain.approve(made.family, made.adapter_id, act(), policy, without_evaluation=True)


def begun(policy: Policy = POLICY, base: str = "base") -> Change:
    """The second version is approved while the first one serves."""
    return approve(approve(family(), "one").family, "two", policy, base)


def said(change: Change) -> list[type[Event]]:
    return [type(one.event) for one in change.events]


def running(held: Family) -> Rollout:
    assert held.rollout is not None
    return held.rollout


def counted(
    candidate: tuple[int, int], incumbent: tuple[int, int], metric: RolloutMetric = RolloutMetric.ERROR_RATE
) -> Counted:
    """(bad, all) outcomes of each."""
    given = zip(RolloutArm, (candidate, incumbent), strict=True)
    return {(metric, arm): {0.0: number - bad, 1.0: bad} for arm, (bad, number) in given}


def decided(rollout: Rollout, outcomes: Counted, seconds: float = 3600) -> Decision:
    return verdict.judge(rollout, outcomes, START + timedelta(seconds=seconds)).decision


@pytest.mark.requirement("AM-3.1")
def test_an_approved_version_of_a_canary_domain_is_rolled_out_and_not_activated() -> None:
    change = begun()
    assert said(change) == [v1.Approved, v1.CanaryStarted]
    assert change.family.active is not None
    assert change.family.active.adapter_id == FIRST
    rollout = running(change.family)
    assert (rollout.candidate_id, rollout.incumbent_id, rollout.share) == (SECOND, FIRST, 0.01)
    assert change.entries[-1].action == "rollout_started"


def test_the_first_version_of_a_family_is_activated_at_once_in_every_mode() -> None:
    change = approve(family(), "one")
    assert said(change) == [v1.Approved, v1.AdapterActivated]
    assert change.family.rollout is None


def test_the_default_policy_activates_at_once() -> None:
    change = begun(Policy(allow_approval_without_evaluation=True))
    assert said(change) == [v1.Approved, v1.AdapterDeactivated, v1.AdapterActivated]


def test_a_step_ends_only_when_requests_and_time_are_enough() -> None:
    rollout = running(begun().family)
    assert decided(rollout, counted((1, 49), (2, 5000))) is Decision.HOLD
    assert decided(rollout, counted((1, 60), (200, 5000)), seconds=59) is Decision.HOLD
    assert decided(rollout, counted((1, 60), (200, 5000))) is Decision.ADVANCE


def test_a_step_whose_outcomes_lean_against_the_candidate_is_held() -> None:
    rollout = running(begun().family)
    assert decided(rollout, counted((14, 60), (500, 5000))) is Decision.HOLD


def test_a_worse_candidate_is_rolled_back_however_early() -> None:
    rollout = running(begun().family)
    assert decided(rollout, counted((20, 40), (100, 5000)), seconds=1) is Decision.ROLL_BACK


def test_a_difference_within_the_tolerance_rolls_nothing_back() -> None:
    outcomes = counted((150, 1000), (1000, 10_000))
    rollout = running(begun().family)
    assert decided(rollout, outcomes) is Decision.ROLL_BACK
    tolerant = replace(rollout, rules=replace(CANARY, metrics={RolloutMetric.ERROR_RATE: 0.2}))
    assert decided(tolerant, outcomes) is Decision.ADVANCE


def test_lower_ratings_roll_a_candidate_back_and_equal_ones_do_not() -> None:
    rollout = running(begun().family)
    low = {0.0: 30, 0.25: 30, 0.75: 40, 1.0: 40}
    high = {0.0: 400, 0.25: 300, 0.75: 50, 1.0: 50}
    rated = {
        (RolloutMetric.RATING, RolloutArm.CANDIDATE): low,
        (RolloutMetric.RATING, RolloutArm.INCUMBENT): high,
    }
    assert decided(rollout, rated) is Decision.ROLL_BACK
    assert decided(rollout, dict.fromkeys(rated, high)) is Decision.HOLD
    found = next(one for one in verdict.evidence_of(rollout, rated) if one.metric is RolloutMetric.RATING)
    assert found.candidate == pytest.approx(2.79, abs=0.01)
    assert found.ci_high < 0
    assert found.log_evidence >= found.line


def test_lost_comparisons_roll_a_candidate_back() -> None:
    rules = replace(CANARY, metrics={RolloutMetric.PREFERENCE: 0.0})
    rollout = replace(running(begun().family), rules=rules)
    lost = {(RolloutMetric.PREFERENCE, RolloutArm.CANDIDATE): {1.0: 75, 0.0: 25}}
    assert decided(rollout, lost) is Decision.ROLL_BACK
    even = {(RolloutMetric.PREFERENCE, RolloutArm.CANDIDATE): {1.0: 50, 0.0: 50}}
    assert decided(rollout, even) is Decision.HOLD


@pytest.mark.requirement("AM-3.1")
def test_a_candidate_goes_through_its_steps_and_is_activated_behind_the_last() -> None:
    held, shares = begun().family, []
    good = counted((0, 60), (0, 5000))
    while decided(running(held), good) is Decision.ADVANCE:
        shares.append(running(held).share)
        held = transitions.advance(held, act()).family
    assert [*shares, running(held).share] == [0.01, 0.05, 0.25]
    assert decided(running(held), good) is Decision.PROMOTE
    change = domain.activate(held, SECOND, act(), verdict.evidence_of(running(held), good))
    assert said(change) == [v1.AdapterDeactivated, v1.AdapterActivated]
    activated = change.events[-1].event
    assert isinstance(activated, v1.AdapterActivated)
    assert activated.rollout_id == running(held).rollout_id
    assert {one.metric for one in activated.evidence} == set(CANARY.metrics)
    assert [one.state for one in change.family.rollouts] == [State.PROMOTED]
    with pytest.raises(NotAllowed, match="no rollout"):
        transitions.advance(change.family, act())


def test_a_rolled_back_candidate_stays_approved_and_the_incumbent_active() -> None:
    change = transitions.roll_back(begun().family, act(reason="users complain"))
    assert said(change) == [v1.CanaryRolledBack]
    assert change.family.rollout is None
    candidate = change.family.find(SECOND)
    assert candidate is not None
    assert (candidate.status.value, candidate.active) == ("approved", False)
    assert change.entries[-1].act.reason == "users complain"


def test_an_ab_test_ends_when_a_difference_is_shown_or_its_time_is_over() -> None:
    rules = replace(CANARY, mode=DeliveryMode.AB, longest_seconds=9000)
    rollout = running(begun(replace(POLICY, delivery=rules)).family)
    assert rollout.share == 0.5
    assert decided(rollout, counted((100, 1000), (100, 1000))) is Decision.HOLD
    assert decided(rollout, counted((20, 1000), (200, 1000))) is Decision.PROMOTE
    assert decided(rollout, counted((200, 1000), (20, 1000))) is Decision.ROLL_BACK
    assert decided(rollout, counted((100, 1000), (100, 1000)), seconds=9000) is Decision.ROLL_BACK


def test_a_paused_rollout_keeps_its_step_and_still_goes_back() -> None:
    change = transitions.pause(begun().family, act())
    paused = running(change.family)
    [event] = [one.event for one in change.events]
    assert isinstance(event, v1.CanaryAdvanced)
    assert event.paused
    assert decided(paused, counted((0, 1000), (0, 5000))) is Decision.HOLD
    assert decided(paused, counted((20, 40), (100, 5000))) is Decision.ROLL_BACK
    assert said(transitions.pause(change.family, act())) == []
    assert not running(transitions.resume(change.family, act()).family).paused


@pytest.mark.parametrize("withdrawn", [FIRST, SECOND])
@pytest.mark.parametrize("withdraw", [domain.reject, domain.deactivate])
def test_a_rollout_ends_when_either_version_is_withdrawn(withdrawn: str, withdraw: object) -> None:
    change = withdraw(begun().family, withdrawn, act())  # type: ignore[operator]
    assert said(change)[0] is v1.CanaryRolledBack
    assert change.family.rollout is None
    active = change.family.active
    assert (active.adapter_id if active else None) == (None if withdrawn == FIRST else FIRST)


def test_a_higher_version_that_is_approved_takes_the_candidate_s_place() -> None:
    change = approve(begun().family, "three")
    assert said(change) == [v1.Approved, v1.CanaryRolledBack, v1.CanaryStarted]
    assert running(change.family).candidate_id == THIRD
    assert [one.reason for one in change.family.rollouts if one.state is State.ROLLED_BACK] == [
        f"superseded by {THIRD}"
    ]


def test_a_version_below_the_candidate_waits_when_it_is_approved() -> None:
    one = approve(family(), "one").family
    two = domain.register(one, submission("two", bump=v1.Bump.PATCH), act()).family
    three = approve(two, "three").family
    change = domain.approve(three, SECOND, act(), POLICY, without_evaluation=True)
    assert said(change) == [v1.Approved]
    assert running(change.family).candidate_id == THIRD
    assert change.entries[-1].action == "not_rolled_out"


def test_activating_another_version_by_hand_ends_the_rollout() -> None:
    held = approve(begun().family, "three", replace(POLICY, activate_on_approval=False)).family
    assert running(held).candidate_id == SECOND
    change = domain.activate(held, THIRD, act())
    assert said(change) == [v1.CanaryRolledBack, v1.AdapterDeactivated, v1.AdapterActivated]


def test_a_rollout_keeps_the_rules_that_it_began_with() -> None:
    held = begun().family
    change = approve(held, "three", replace(POLICY, activate_on_approval=False, delivery=Delivery()))
    assert running(change.family).rules == CANARY


def test_a_shadow_of_another_base_model_is_not_started() -> None:
    rules = replace(CANARY, mode=DeliveryMode.SHADOW)
    change = begun(replace(POLICY, delivery=rules), base="another")
    assert said(change) == [v1.Approved]
    assert "different base models" in change.entries[-1].act.reason


def test_the_highest_approved_version_is_rolled_out_where_none_is_named() -> None:
    held = approve(approve(family(), "one").family, "two", replace(POLICY, activate_on_approval=False)).family
    assert transitions.newest(held) == SECOND
    with pytest.raises(NotAllowed, match="no approved version above"):
        transitions.newest(domain.activate(held, SECOND, act()).family)


def test_a_version_that_cannot_be_rolled_out_is_refused_with_the_reason() -> None:
    held = begun().family
    with pytest.raises(NotAllowed, match="runs already"):
        transitions.start(held, SECOND, CANARY, act())
    with pytest.raises(NotAllowed, match="active already"):
        transitions.start(held, FIRST, CANARY, act())
    registered = domain.register(held, submission("three"), act())
    with pytest.raises(NotAllowed, match="only an approved version"):
        transitions.start(registered.family, registered.adapter_id, CANARY, act())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", ()),
        ("steps", (1.0,)),
        ("steps", (0.2, 0.1)),
        ("steps", (0.5, 1.5)),
        ("share", 1.0),
        ("minimum_requests", 0),
        ("minimum_seconds", -1.0),
        ("metrics", {}),
        ("metrics", {RolloutMetric.ERROR_RATE: 1.0}),
        ("slow_ms", 0.0),
        ("false_rollbacks", 0.0),
    ],
)
def test_rules_that_decide_nothing_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(InvalidRules) as caught:
        replace(Delivery(), **{setting: value})
    assert caught.value.field == f"delivery.{setting}"
