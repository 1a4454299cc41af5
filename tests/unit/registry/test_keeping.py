"""Which versions the rules let go: never one that serves, is held, waits, or that a kept one was made from."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.registry import domain
from services.registry.domain import activate, approve, reject
from services.registry.family import Adapter, Status
from services.registry.keeping import KeepRules, hold, releasable, release
from services.registry.policy import Policy
from services.registry.transition import NotAllowed
from services.registry.version import SemVer
from tests.unit.registry.builders import START, act, family, submission, training

pytestmark = pytest.mark.unit

NOW = START + timedelta(days=1000)
EVERYTHING = KeepRules(rejected_days=0, superseded_days=0, keep_newest=1)


def version(
    number: int, status: Status = Status.APPROVED, *, continues: str = "", age: float = 500, **state: object
) -> Adapter:
    made = replace(training(f"job-{number}"), continued_from=continues)
    at = NOW - timedelta(days=age)
    adapter = Adapter(
        f"tax-law-lora-v1.0.{number}",
        SemVer(1, 0, number),
        replace(submission(f"artifact {number}"), training=made),
        at,
        status,
        decided_at=None if status is Status.PENDING_REVIEW else at,
    )
    return replace(adapter, **state)  # type: ignore[arg-type]


@st.composite
def graphs(draw: st.DrawFn) -> list[Adapter]:
    """Versions in any state, each made from an earlier one, by its id or its job's, or from none."""
    found: list[Adapter] = []
    for number in range(draw(st.integers(1, 14))):
        parent = draw(st.none() | st.sampled_from(found)) if found else None
        continues = ""
        if parent is not None and parent.submission.training is not None:
            by_job = draw(st.booleans())
            continues = parent.submission.training.job_id if by_job else parent.adapter_id
        status = draw(st.sampled_from(Status))
        found.append(
            version(
                number,
                status,
                continues=continues,
                age=draw(st.sampled_from([0.5, 50, 500])),
                active=status is Status.APPROVED and draw(st.integers(0, 3)) == 0,
                held=draw(st.integers(0, 4)) == 0,
                released_at=None,
            )
        )
    return found


def chain_of(one: Adapter, adapters: list[Adapter]) -> set[str]:
    """Every version below one, by following one link at a time."""
    found: set[str] = set()
    link = one.submission.training.continued_from if one.submission.training else ""
    while link:
        parent = next(
            each
            for each in adapters
            if link in (each.adapter_id, each.submission.training.job_id)  # type: ignore[union-attr]
        )
        found.add(parent.adapter_id)
        link = parent.submission.training.continued_from if parent.submission.training else ""
    return found


@given(graphs(), st.sampled_from([EVERYTHING, KeepRules(), KeepRules(rejected_days=100, superseded_days=100)]))
@settings(max_examples=400, deadline=None)
def test_nothing_that_the_chain_of_a_kept_version_needs_is_let_go(adapters: list[Adapter], rules: KeepRules) -> None:
    gone = {one.adapter_id for one in releasable(adapters, {}, rules, NOW)}
    for one in adapters:
        kept = one.active or one.held or one.status is Status.PENDING_REVIEW
        if kept:
            assert one.adapter_id not in gone
        if one.adapter_id not in gone:
            assert not chain_of(one, adapters) & gone, f"{one.adapter_id} stays and was made from one that goes"


def test_ages_count_from_the_decision_or_the_last_answer_and_the_newest_stay() -> None:
    rejected = [version(0, Status.REJECTED, age=91), version(1, Status.REJECTED, age=89)]
    approved = [version(number, age=400) for number in range(2, 7)]
    names = [one.adapter_id for one in releasable([*rejected, *approved], {}, KeepRules(), NOW)]
    assert names == [rejected[0].adapter_id], "superseded versions are kept for good unless a rule lets them go"
    rules = KeepRules(superseded_days=365, keep_newest=3)
    used = {approved[0].adapter_id: NOW - timedelta(days=2)}
    names = [one.adapter_id for one in releasable([*rejected, *approved], used, rules, NOW)]
    assert names == [rejected[0].adapter_id, approved[1].adapter_id]


def test_a_version_that_serves_is_held_or_waits_is_never_released_whoever_asks() -> None:
    waiting = domain.register(family(), submission(), act()).family
    name = waiting.versions[0].adapter_id
    serving = approve(
        waiting, name, act(), Policy(allow_approval_without_evaluation=True), without_evaluation=True
    ).family
    held = hold(reject(serving, name, act()).family, name, act(), held=True).family
    for state, why in ((waiting, "waiting"), (serving, "active"), (held, "held")):
        with pytest.raises(NotAllowed, match=why):
            release(state, name, act())
    free = hold(held, name, act(), held=False).family
    change = release(free, name, act(by="retention"))
    event = change.events[0].event
    assert (type(event).__name__, event.job_id, event.by) == ("AdapterReleased", "job-first", "retention")  # type: ignore[attr-defined]
    assert change.entries[0].after == {"status": "rejected", "active": False, "held": False, "released": True}
    assert release(change.family, name, act()).events == ()


def test_what_is_released_is_never_approved_or_activated_again() -> None:
    adapter = version(0, released_at=NOW)
    one = family().with_adapter(adapter)
    with pytest.raises(NotAllowed, match="was released"):
        activate(one, adapter.adapter_id, act())
    with pytest.raises(NotAllowed, match="was released"):
        hold(one, adapter.adapter_id, act(), held=True)
    rejected_by_nobody = family().with_adapter(replace(adapter, status=Status.PENDING_REVIEW))
    with pytest.raises(NotAllowed, match="was released"):
        approve(rejected_by_nobody, adapter.adapter_id, act(), Policy())


@pytest.mark.parametrize("rules", [{"rejected_day": 1}, {"keep_newest": 0}, {"superseded_days": -1}])
def test_a_rule_that_is_misspelled_or_out_of_range_is_refused(rules: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KeepRules.model_validate(rules)
