"""The catalogue: what order, repetition and delay of events must not change."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.events import activated, adapter, approved, deactivated, registered, rejected
from services.inference.catalogue import Catalogue, CatalogueEvent, Standing

V1, V2 = adapter("1.0.0"), adapter("2.0.0")

# One family's life as the registry tells it, its revisions counting up.
LIFE: tuple[CatalogueEvent, ...] = (
    registered(V1, 1),
    approved(V1, 2),
    activated(V1, 3),
    registered(V2, 4),
    approved(V2, 5),
    activated(V2, 6),
    deactivated(V1, 7),
    deactivated(V2, 8),
    activated(V1, 9),
)


def fold(events: Iterable[CatalogueEvent]) -> Catalogue:
    catalogue = Catalogue()
    for event in events:
        catalogue = catalogue.apply(event)
    return catalogue


@given(st.permutations(LIFE), st.lists(st.sampled_from(LIFE)))
def test_any_order_and_any_repetition_of_the_events_ends_the_same(
    order: list[CatalogueEvent], repeated: list[CatalogueEvent]
) -> None:
    assert fold([*order, *repeated]) == fold(LIFE)


@given(st.integers(0, len(LIFE)), st.randoms(use_true_random=False))
def test_at_every_moment_at_most_one_version_of_a_family_is_active(moment: int, random: object) -> None:
    seen = list(LIFE)
    random.shuffle(seen)  # type: ignore[attr-defined]
    catalogue = fold(seen[:moment])
    active = [one for one in catalogue.records if catalogue.standing(one) is Standing.ACTIVE]
    assert len(active) <= 1


def test_the_life_ends_with_the_version_that_was_activated_last() -> None:
    catalogue = fold(LIFE)
    assert catalogue.active == {"law-lora": V1}
    assert catalogue.standing(V2.adapter_id) is Standing.INACTIVE


def test_a_late_activation_does_not_bring_a_deactivated_version_back() -> None:
    catalogue = fold([deactivated(V1, 7), activated(V1, 3)])
    assert catalogue.active == {}
    assert catalogue.standing(V1.adapter_id) is Standing.INACTIVE


def test_a_deactivation_of_the_old_version_that_comes_first_does_not_hide_the_new_one() -> None:
    assert fold([deactivated(V1, 7), activated(V2, 6)]).active == {"law-lora": V2}


def test_the_new_version_answers_before_the_deactivation_of_the_old_one_arrives() -> None:
    catalogue = fold([activated(V1, 3), activated(V2, 6)])
    assert catalogue.active == {"law-lora": V2}
    assert catalogue.standing(V1.adapter_id) is Standing.INACTIVE


def test_an_old_version_does_not_return_when_its_deactivation_is_lost_and_the_new_one_ends() -> None:
    assert fold([activated(V1, 3), activated(V2, 6), deactivated(V2, 8)]).active == {}


@pytest.mark.parametrize(
    ("events", "standing"),
    [
        ([registered(V1, 1)], Standing.CANDIDATE),
        ([registered(V1, 1), approved(V1, 2)], Standing.APPROVED),
        ([registered(V1, 1), rejected(V1, 2)], Standing.REJECTED),
        ([registered(V1, 1), rejected(V1, 2), approved(V1, 3)], Standing.APPROVED),
        ([registered(V1, 1), activated(V1, 2), rejected(V1, 3)], Standing.REJECTED),
    ],
)
def test_standing_follows_the_newest_revision(events: list[CatalogueEvent], standing: Standing) -> None:
    assert fold(events).standing(V1.adapter_id) is standing
    assert fold(reversed(events)).standing(V1.adapter_id) is standing


def test_an_older_event_leaves_the_very_same_catalogue() -> None:
    catalogue = fold(LIFE)
    assert catalogue.apply(registered(V1, 0)) is catalogue
