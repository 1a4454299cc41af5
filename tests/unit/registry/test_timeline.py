"""The state of a family at a moment, against the states that random histories of the domain's transitions held."""

from dataclasses import asdict, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_kit.errors import Problem
from services.registry import domain
from services.registry.family import Family, Status
from services.registry.policy import Policy
from services.registry.store.listing import Trail
from services.registry.timeline.endpoint import past_moment
from services.registry.timeline.replay import evidence_of, in_effect, policy_at, rollout_at, state_at
from services.registry.transition import Act, Change, RegistryError
from tests.unit.registry.builders import START, evaluation, family, submission

pytestmark = pytest.mark.unit

POLICIES = (Policy(), Policy(activate_on_approval=False, allow_approval_without_evaluation=True))
STEPS = st.tuples(
    st.sampled_from(["register", "score", "approve", "approve_unjudged", "reject", "activate", "deactivate"]),
    st.integers(0, 5),  # which version
    st.floats(40, 100),  # score points
    st.integers(-40, 120),  # seconds since the step before: hosts' clocks differ
    st.sampled_from(POLICIES),
)


def trail_of(change: Change) -> list[Trail]:
    return [
        Trail(
            one.subject,
            "tax-law",
            one.act.at,
            one.act.by,
            one.action,
            one.act.reason,
            one.before,
            one.after,
            one.revision,
        )
        for one in change.entries
    ]


def applied(held: Family, step: str, number: int, which: int, points: float, at: datetime, policy: Policy) -> Change:
    """One transition; raises RegistryError where the rules forbid it."""
    act = Act(f"person-{number}", at, f"step {number}")
    if step == "register":
        return domain.register(held, submission(f"artifact {number}"), act)
    if not held.versions:
        return Change(held)
    adapter = held.versions[which % len(held.versions)]
    target = adapter.adapter_id
    match step:
        case "score":
            scored = replace(
                evaluation("x", points, evaluation_id=f"ev-{number}"),
                artifact_sha256=adapter.artifact_sha256,
                scored_at=at,
            )
            return domain.score(held, target, scored, policy, at)
        case "approve":
            return domain.approve(held, target, act, policy)
        case "approve_unjudged":
            return domain.approve(held, target, act, policy, without_evaluation=True)
        case "reject":
            return domain.reject(held, target, act, policy=policy)
        case "activate":
            return domain.activate(held, target, act)
        case _:
            return domain.deactivate(held, target, act)


@given(st.lists(STEPS, min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_the_trail_of_any_history_gives_the_state_that_was_held_at_each_moment(
    steps: list[tuple[str, int, float, int, Policy]],
) -> None:
    held, now, trail, policies = family(), START, list[Trail](), dict[str, Policy]()
    moments: list[tuple[datetime, Family]] = [(START - timedelta(days=1), held)]
    effective = START - timedelta(days=1)
    for number, (step, which, points, later, policy) in enumerate(steps):
        now += timedelta(seconds=later)
        try:
            change = applied(held, step, number, which, points, now, policy)
        except RegistryError:
            continue
        trail += trail_of(change)
        if change.entries:
            effective = max(effective, now)
            for entry in change.entries:
                policies[f"{entry.subject} {entry.revision}"] = policy
        held = change.family
        moments.append((effective, held))
    for at, expected in dict(moments).items():  # of several changes at one moment the last one holds
        found = state_at(trail, at)
        assert {one.adapter_id: (one.status, one.active) for one in expected.versions} == {
            name: (one.status, one.active) for name, one in found.items()
        }
        serving = [one.adapter_id for one in found.values() if one.active]
        assert serving == ([expected.active.adapter_id] if expected.active else [])
        for adapter in expected.versions:
            state = found[adapter.adapter_id]
            if adapter.status is Status.PENDING_REVIEW:
                assert state.decision is None or state.decision.action == "review_requested"
                continue
            decision = state.decision
            assert decision is not None
            assert (decision.actor, decision.at) == (adapter.decided_by, adapter.decided_at)
            assert decision.reason == adapter.decision_reason
            assert decision.after["policy"] == asdict(policies[f"{decision.subject} {decision.revision}"])
            if adapter.decided_on:
                assert decision.after["evaluation_id"] == adapter.decided_on


def entry(minute: int, action: str = "policy_set", **after: object) -> Trail:
    return Trail("subject", "tax-law", START + timedelta(minutes=minute), "anna", action, "", {}, after, 0)


def test_an_entry_of_a_slow_clock_takes_effect_with_the_one_committed_before_it() -> None:
    trail = [entry(0), entry(10), entry(4), entry(20)]
    counts = [in_effect(trail, START + timedelta(minutes=minute)) for minute in (-1, 0, 5, 10, 19, 20)]
    assert counts == [0, 1, 1, 3, 3, 4]


def test_the_policy_of_a_moment_is_the_one_that_had_been_set_by_then() -> None:
    trail = [entry(0, approve_at=80), entry(10, approve_at=90)]
    assert policy_at(trail, START - timedelta(seconds=1)) is None
    assert [policy_at(trail, START + timedelta(minutes=m)) for m in (0, 9, 10)] == [trail[0], trail[0], trail[1]]


def test_a_trail_that_names_no_evaluation_is_read_with_the_newest_score_before_the_decision_and_says_so() -> None:
    scores = [evaluation(evaluation_id=f"ev-{minute}", minutes=minute) for minute in (1, 5, 9)]
    found = evidence_of(entry(7, "approved", status="approved", active=False), scores)
    assert (found.how, found.evaluation) == ("inferred", scores[1])
    assert evidence_of(entry(0, "approved", status="approved"), scores).how == "none"
    named = evidence_of(entry(7, "approved", evaluation_id="ev-9"), scores)
    assert (named.how, named.evaluation) == ("recorded", scores[2])
    express = evidence_of(entry(7, "approved", without_evaluation=True), scores)
    assert (express.how, express.evaluation) == ("none", None)


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00", "2026-01-01", "1767225600", "2026-01-01 00:00:00Z", "2026-13-01T00:00:00Z",
     "2026-01-01T00:00:00 01:00", "now", ""],
)  # fmt: skip
def test_a_time_without_its_zone_or_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RFC 3339") as refused:
        past_moment(text, START)
    assert refused.value.status == 422


def test_the_future_is_refused_and_every_zone_is_read() -> None:
    with pytest.raises(Problem, match="in the future"):
        past_moment("2026-01-01T00:00:00.001Z", START)
    assert past_moment("2026-01-01t01:00:00+01:00", START) == START
    assert past_moment("2025-12-31T19:00:00.5-04:00", START) == START - timedelta(seconds=3599.5)


def test_entries_about_metrics_and_rollouts_change_no_state_and_a_rollout_that_ran_is_shown() -> None:
    approved = entry(0, "activated", status="approved", active=True)
    metrics = entry(1, "metrics_set", status={"value": 3.0}, active={"value": 1.0})
    told = {"rollout_id": "r", "mode": "canary", "share": 0.05, "state": "running"}
    canary = entry(2, "canary_started", status="approved", active=True, **told)
    ended = entry(4, "rolled_back", status="approved", active=True, **told | {"state": "rolled_back"})
    trail = [approved, metrics, canary, ended]
    state = state_at(trail, START + timedelta(minutes=3))["subject"]
    assert (state.status, state.active, state.activation) == (Status.APPROVED, True, approved)
    found = [rollout_at(trail, START + timedelta(minutes=minute)) for minute in (1, 3, 4)]
    assert [one["candidate"] if one else None for one in found] == [None, "subject", None]
