"""Whatever happens to a family in whatever order: one rollout at most, and inference derives the registry's truth."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_events.v1 import Bump, DeliveryMode
from services.inference.catalogue import Catalogue, CatalogueEvent
from services.registry import domain
from services.registry.family import Family, Status
from services.registry.policy import Policy
from services.registry.rollout import transitions
from services.registry.rollout.rules import Delivery
from services.registry.rollout.state import State
from services.registry.transition import Act, Change, NotAllowed, UnknownAdapter
from tests.unit.registry.builders import act, family, submission

VERSIONS = [f"tax-law-lora-v1.0.{patch}" for patch in range(4)]
POLICY = Policy(allow_approval_without_evaluation=True)


def approve(held: Family, adapter_id: str, mode: DeliveryMode) -> Change:
    policy = replace(POLICY, delivery=Delivery(mode=mode))
    return domain.approve(held, adapter_id, act(), policy, without_evaluation=True)


def start(held: Family, adapter_id: str, mode: DeliveryMode) -> Change:
    return transitions.start(held, adapter_id, Delivery(mode=mode), act())


def promote(held: Family, by: Act) -> Change:
    return domain.activate(held, transitions.running_of(held).candidate_id, by)


OF_A_VERSION: tuple[Callable[[Family, str, Act], Change], ...] = (domain.activate, domain.deactivate, domain.reject)
OF_THE_ROLLOUT: tuple[Callable[[Family, Act], Change], ...] = (
    transitions.advance,
    transitions.pause,
    transitions.resume,
    transitions.roll_back,
    promote,
)
version, mode = st.sampled_from(VERSIONS), st.sampled_from(list(DeliveryMode))
step = st.one_of(
    st.tuples(st.just(approve), version, mode),
    st.tuples(st.just(start), version, mode),
    st.tuples(st.sampled_from(OF_A_VERSION), version, st.just(act())),
    st.tuples(st.sampled_from(OF_THE_ROLLOUT), st.just(act())),
)


def beginning() -> Change:
    """Four versions in review."""
    change = Change(family())
    for name in "abcd":
        change = change.then(domain.register(change.family, submission(name, bump=Bump.PATCH), act()))
    return change


@given(st.lists(step, max_size=25), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_inference_derives_the_registry_s_truth_from_the_events_in_any_order(
    steps: list[tuple[Callable[..., Change], object]], order: random.Random
) -> None:
    made = beginning()
    held, events = made.family, [one.event for one in made.events]
    for what, *given_ in steps:
        with suppress(NotAllowed, UnknownAdapter):
            change = what(held, *given_)
            held, events = change.family, events + [one.event for one in change.events]
        running = [one for one in held.rollouts if one.state is State.RUNNING]
        assert len(running) <= 1
        for rollout in running:
            candidate, incumbent = held.find(rollout.candidate_id), held.find(rollout.incumbent_id)
            assert candidate is not None
            assert incumbent is not None
            assert (candidate.status, candidate.active, incumbent.active) == (Status.APPROVED, False, True)
    assert [one.revision for one in events] == list(range(1, len(events) + 1))  # type: ignore[attr-defined]

    repeated = events + order.sample(events, len(events) // 3)
    order.shuffle(repeated)
    catalogue = Catalogue()
    for event in repeated:
        if isinstance(event, CatalogueEvent):
            catalogue = catalogue.apply(event)
    active, found = catalogue.active.get(held.family_id), catalogue.running.get(held.family_id)
    assert (active.adapter_id if active else None) == (held.active.adapter_id if held.active else None)
    derived = (found[1].adapter_id, found[0].step, found[0].share) if found else None
    rollout = held.rollout
    assert derived == ((rollout.candidate_id, rollout.step, rollout.share) if rollout else None)
