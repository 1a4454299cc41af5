"""Transitions of a family, each by example."""

from dataclasses import asdict, replace

import pytest

from fleet_events import v1
from services.registry.domain import PIPELINE, activate, approve, could_not_judge, deactivate, register, reject, score
from services.registry.family import Family, Status
from services.registry.policy import Policy
from services.registry.transition import Change, DuplicateVersion, JobReused, NotAllowed, NotTheArtifact, UnknownAdapter
from services.registry.version import SemVer
from tests.unit.registry.builders import START, act, blob, digest, evaluation, family, submission

V1, V2 = "tax-law-lora-v1.0.0", "tax-law-lora-v1.0.1"
POLICY = Policy()


def events_of(change: Change) -> list[str]:
    return [type(each.event).__name__ for each in change.events]


def revisions(change: Change) -> list[int]:
    return [each.event.revision for each in change.events]  # type: ignore[attr-defined]


def one() -> Family:
    return register(family(), submission(), act()).family


def serving() -> Family:
    return score(one(), V1, evaluation(), POLICY, START).family


def reviewed() -> Family:
    """v1.0.0 has a score between the lines and waits for a human."""
    return score(one(), V1, evaluation(score=80), POLICY, START).family


def two() -> Family:
    """v1.0.0 serves, v1.0.1 waits."""
    return register(serving(), submission("second"), act()).family


@pytest.mark.requirement("LA-1.3")
def test_a_registered_version_has_its_id_and_waits_for_review() -> None:
    change = register(family(), submission(), act())
    adapter = change.family.find("tax-law-lora-v1.0.0")
    assert adapter is not None
    assert (adapter.status, adapter.active) == (Status.PENDING_REVIEW, False)
    (event,) = [each.event for each in change.events]
    assert isinstance(event, v1.AdapterRegistered)
    assert event.adapter.artifact.blob.sha256 == digest("first")
    assert (event.adapter.method, event.adapter.version, event.revision) == ("lora", "1.0.0", 1)
    assert event.job_id == "job-first"


@pytest.mark.requirement("AM-1.3")
def test_a_version_that_brings_nothing_to_be_found_by_is_found_by_what_its_predecessor_is() -> None:
    bare = replace(submission("second"), description="", example_prompts=())
    inherited = register(serving(), bare, act()).family.find(V2).submission  # type: ignore[union-attr]
    assert inherited.description == "knows tax law"
    assert inherited.example_prompts == ("When is the tax return due?",)
    described = replace(bare, description="knows income tax")
    kept = register(serving(), described, act()).family.find(V2).submission  # type: ignore[union-attr]
    assert (kept.description, kept.example_prompts) == ("knows income tax", ())


def test_a_duplicate_version_is_refused_with_the_next_version_suggested() -> None:
    with pytest.raises(DuplicateVersion) as refused:
        register(one(), submission("other", version="1.0.0"), act())
    assert refused.value.suggested == SemVer(1, 0, 1)
    assert "1.0.1" in str(refused.value)


def test_the_same_job_registered_again_changes_nothing() -> None:
    change = register(one(), submission(), act(minutes=99))
    assert change == Change(one(), adapter_id=V1)


def test_a_job_cannot_register_a_second_artifact() -> None:
    with pytest.raises(JobReused, match="job-first"):
        register(one(), submission("other", job="job-first"), act())


@pytest.mark.requirement("LA-5.1")
def test_a_high_score_approves_and_activates_with_rising_revisions() -> None:
    change = score(one(), V1, evaluation(score=91.5), POLICY, START)
    assert events_of(change) == ["Approved", "AdapterActivated"]
    assert revisions(change) == [2, 3]
    approved = change.events[0].event
    assert isinstance(approved, v1.Approved)
    assert (approved.by, approved.score, approved.evaluation_id) == (PIPELINE, 91.5, "ev-1")
    assert approved.artifact_sha256 == digest("first")
    assert change.family.active is not None


@pytest.mark.requirement("LA-5.1")
def test_a_middling_score_asks_a_human_and_leaves_the_version_waiting() -> None:
    change = score(one(), V1, evaluation(score=80), POLICY, START)
    assert events_of(change) == ["ReviewRequested"]
    adapter = change.family.find(V1)
    assert adapter is not None
    assert adapter.status is Status.PENDING_REVIEW
    assert adapter.evaluation is not None


@pytest.mark.requirement("LA-5.1")
def test_a_low_score_rejects() -> None:
    change = score(one(), V1, evaluation(score=40), POLICY, START)
    assert events_of(change) == ["Rejected"]
    assert change.family.versions[0].status is Status.REJECTED


def test_a_score_for_other_bytes_is_refused() -> None:
    with pytest.raises(NotTheArtifact, match=digest("forged")):
        score(one(), V1, evaluation("forged"), POLICY, START)


def test_a_score_for_an_unknown_adapter_is_refused() -> None:
    with pytest.raises(UnknownAdapter, match=r"v9\.0\.0"):
        score(one(), "tax-law-lora-v9.0.0", evaluation(), POLICY, START)


def test_an_older_score_that_comes_late_decides_nothing() -> None:
    reviewed = score(one(), V1, evaluation(score=80, minutes=20), POLICY, START).family
    late = score(reviewed, V1, evaluation(score=99, minutes=10, evaluation_id="ev-0"), POLICY, START)
    assert late.events == ()
    assert late.family == reviewed
    assert late.evaluation is not None  # kept as history


def test_a_score_after_the_decision_is_kept_and_changes_no_status() -> None:
    rejected = reject(one(), V1, act()).family
    change = score(rejected, V1, evaluation(score=99), POLICY, START)
    assert change.events == ()
    assert change.family.versions[0].status is Status.REJECTED
    assert change.family.versions[0].evaluation is not None


def test_a_version_that_takes_over_is_published_after_the_one_that_stops() -> None:
    change = score(two(), V2, evaluation("second", against=V1), POLICY, START)
    assert events_of(change) == ["Approved", "AdapterDeactivated", "AdapterActivated"]
    stopped, started = change.events[1].event, change.events[2].event
    assert isinstance(stopped, v1.AdapterDeactivated)
    assert isinstance(started, v1.AdapterActivated)
    assert (stopped.adapter_id, stopped.replaced_by, started.replaces) == (V1, V2, V1)
    assert stopped.revision < started.revision


@pytest.mark.parametrize("against", ["", "tax-law-lora-v0.9.0"])
def test_a_version_that_was_not_compared_with_the_one_it_would_replace_waits_for_a_human(against: str) -> None:
    change = score(two(), V2, evaluation("second", 99, against=against), POLICY, START)
    (event,) = [each.event for each in change.events]
    assert isinstance(event, v1.ReviewRequested)
    assert f"not compared with {V1}" in event.reason


def test_a_late_approval_of_a_lower_version_does_not_push_out_the_higher_one() -> None:
    state = register(one(), submission("second"), act()).family
    state = score(state, V2, evaluation("second"), POLICY, START).family
    change = score(state, V1, evaluation("first", evaluation_id="ev-late"), POLICY, START)
    assert events_of(change) == ["Approved"]
    assert change.family.active is not None
    assert change.family.active.adapter_id == V2


def test_going_back_to_a_lower_version_is_a_rollback() -> None:
    state = score(two(), V2, evaluation("second", against=V1), POLICY, START).family
    change = activate(state, V1, act(reason="v1.0.1 cites repealed law"))
    assert events_of(change) == ["AdapterDeactivated", "AdapterActivated", "AdapterRolledBack"]
    back = change.events[-1].event
    assert isinstance(back, v1.AdapterRolledBack)
    assert (back.from_adapter_id, back.to_adapter_id, back.reason) == (V2, V1, "v1.0.1 cites repealed law")


def test_a_policy_without_activation_leaves_the_approved_version_idle() -> None:
    change = score(one(), V1, evaluation(), replace(POLICY, activate_on_approval=False), START)
    assert events_of(change) == ["Approved"]
    assert change.family.active is None


@pytest.mark.parametrize("step", [activate, approve])
def test_what_was_rejected_never_comes_back(step) -> None:  # type: ignore[no-untyped-def]
    rejected = reject(one(), V1, act(reason="cites repealed law")).family
    more = (POLICY,) if step is approve else ()
    with pytest.raises(NotAllowed):
        step(rejected, V1, act(), *more)


def test_what_waits_for_review_cannot_be_activated() -> None:
    with pytest.raises(NotAllowed, match="pending_review"):
        activate(one(), V1, act())


def test_rejecting_what_serves_stops_it_first() -> None:
    change = reject(serving(), V1, act())
    assert events_of(change) == ["AdapterDeactivated", "Rejected"]
    assert change.family.active is None


@pytest.mark.requirement("LA-1.5")
def test_a_decision_says_by_whom_when_and_why() -> None:
    change = approve(reviewed(), V1, act(by="anna", minutes=5, reason="checked ten answers"), POLICY)
    adapter = change.family.find(V1)
    assert adapter is not None
    assert (adapter.decided_by, adapter.decision_reason) == ("anna", "checked ten answers")
    assert adapter.decided_at == act(minutes=5).at
    entry = change.entries[0]
    assert (entry.action, entry.act.by, entry.act.reason) == ("approved", "anna", "checked ten answers")
    assert entry.before == {"status": "pending_review", "active": False}
    assert entry.after == {
        "status": "approved",
        "active": False,
        "evaluation_id": "ev-1",
        "policy": asdict(POLICY),
    }


def test_ones_own_training_is_not_approved_where_the_policy_forbids_it() -> None:
    strict = replace(POLICY, forbid_own_approval=True)
    with pytest.raises(NotAllowed, match="own approval"):
        approve(reviewed(), V1, act(by="trainer@example.org"), strict)
    assert events_of(approve(reviewed(), V1, act(by="anna"), strict)) == ["Approved", "AdapterActivated"]


@pytest.mark.requirement("LA-5.1")
def test_what_was_never_evaluated_is_approved_only_expressly_and_where_the_policy_permits_it() -> None:
    permissive = replace(POLICY, allow_approval_without_evaluation=True)
    for policy, express, why in (
        (POLICY, False, "has no evaluation"),
        (POLICY, True, "does not permit an approval without an evaluation"),
        (permissive, False, "has no evaluation"),
    ):
        with pytest.raises(NotAllowed, match=why) as refused:
            approve(one(), V1, act(), policy, without_evaluation=express)
        assert refused.value.field == "without_evaluation"
    change = approve(one(), V1, act(reason="no golden data set yet"), permissive, without_evaluation=True)
    approved = change.events[0].event
    assert isinstance(approved, v1.Approved)
    assert (approved.without_evaluation, approved.reason) == (True, "no golden data set yet")
    assert change.entries[0].after == {
        "status": "approved",
        "active": False,
        "without_evaluation": True,
        "policy": asdict(permissive),
    }


def test_a_version_that_has_a_score_is_not_approved_as_if_it_had_none() -> None:
    permissive = replace(POLICY, allow_approval_without_evaluation=True)
    with pytest.raises(NotAllowed, match=r"has an evaluation \(score 80.0\)"):
        approve(reviewed(), V1, act(), permissive, without_evaluation=True)
    change = approve(reviewed(), V1, act(), permissive)
    assert change.events[0].event.without_evaluation is False  # type: ignore[attr-defined]
    assert change.entries[0].after["evaluation_id"] == "ev-1"
    assert "without_evaluation" not in change.entries[0].after


def test_deciding_twice_changes_nothing_twice() -> None:
    approved = serving()
    assert approve(approved, V1, act(), POLICY) == Change(approved, adapter_id=V1)
    assert activate(approved, V1, act()) == Change(approved, adapter_id=V1)
    idle = deactivate(approved, V1, act()).family
    assert deactivate(idle, V1, act()) == Change(idle, adapter_id=V1)
    rejected = reject(idle, V1, act()).family
    assert reject(rejected, V1, act()) == Change(rejected, adapter_id=V1)


def test_the_artifact_of_the_card_is_the_one_submitted() -> None:
    assert one().versions[0].card.artifact.blob == blob("first")


def test_a_version_that_cannot_be_judged_waits_for_a_human_and_one_that_was_scored_does_not() -> None:
    change = could_not_judge(one(), V1, "ev-9", "no golden data set", START)
    (review,) = [each.event for each in change.events]
    assert isinstance(review, v1.ReviewRequested)
    assert review.reason == "evaluation ev-9 failed: no golden data set"
    assert review.revision == change.family.revision == one().revision + 1
    scored = score(one(), V1, evaluation(score=80), POLICY, START).family
    assert could_not_judge(scored, V1, "ev-9", "no golden data set", START).events == ()
