"""Versions: reading, order, bump rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events.v1 import Bump
from services.registry.domain import register
from services.registry.family import Family
from services.registry.version import FIRST, InvalidVersion, SemVer, VersionBasis, bump_rule
from tests.unit.registry.builders import act, family, submission

versions = st.builds(SemVer, *(st.integers(0, 999_999_999) for _ in range(3)))


@given(versions)
def test_a_version_reads_back_as_it_was_written(version: SemVer) -> None:
    assert SemVer.parse(str(version)) == version


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.3\n", "1.2.-3", "1.2.3-rc1", "١.٢.٣"]
)
def test_what_is_no_version_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidVersion, match=r"MAJOR\.MINOR\.PATCH, for example 1\.4\.0"):
        SemVer.parse(text)


@given(versions, st.sampled_from(Bump))
def test_a_bumped_version_is_higher_and_has_zeros_right_of_the_part(version: SemVer, part: Bump) -> None:
    bumped = version.bump(part)
    assert bumped > version
    match part:
        case Bump.MAJOR:
            assert bumped == SemVer(version.major + 1, 0, 0)
        case Bump.MINOR:
            assert bumped == SemVer(version.major, version.minor + 1, 0)
        case Bump.PATCH:
            assert bumped == SemVer(version.major, version.minor, version.patch + 1)


@given(versions, versions)
def test_versions_are_ordered_number_by_number(one: SemVer, other: SemVer) -> None:
    assert (one < other) == ((one.major, one.minor, one.patch) < (other.major, other.minor, other.patch))


def _registered(*submissions) -> Family:  # type: ignore[no-untyped-def]
    state = family()
    for each in submissions:
        state = register(state, each, act()).family
    return state


@pytest.mark.requirement("LA-1.1")
def test_the_first_version_of_a_family_is_1_0_0() -> None:
    assert family().next_version(submission()) == FIRST == SemVer(1, 0, 0)


@pytest.mark.requirement("LA-1.1")
def test_a_version_that_names_nothing_raises_the_patch_of_the_highest_there_is() -> None:
    state = _registered(submission("a", version="1.0.5"), submission("b", version="0.9.0"))
    assert state.next_version(submission("c")) == SemVer(1, 0, 6)


@pytest.mark.requirement("LA-1.1")
def test_a_given_version_is_honoured_even_below_the_highest() -> None:
    state = _registered(submission("a", version="2.0.0"), submission("b", version="1.4.1"))
    assert [a.adapter_id for a in state.versions] == ["tax-law-lora-v2.0.0", "tax-law-lora-v1.4.1"]


@pytest.mark.requirement("LA-1.2")
@pytest.mark.parametrize("requested", [None, *Bump])
def test_a_new_base_model_is_a_major_version_whichever_was_requested(requested: Bump | None) -> None:
    state = _registered(submission("a", version="1.3.2"))
    assert state.next_version(submission("b", base="other base", bump=requested)) == SemVer(2, 0, 0)


@pytest.mark.requirement("LA-1.2")
@pytest.mark.parametrize(
    ("requested", "next_one"), [(Bump.MAJOR, "2.0.0"), (Bump.MINOR, "1.4.0"), (Bump.PATCH, "1.3.3")]
)
def test_the_requests_bump_decides_on_the_same_base_model(requested: Bump, next_one: str) -> None:
    state = _registered(submission("a", version="1.3.2"))
    assert str(state.next_version(submission("b", bump=requested))) == next_one


@pytest.mark.requirement("LA-1.2")
@pytest.mark.parametrize(
    ("loss", "data", "next_one"),
    [
        (0.90, "data", "1.1.0"),  # ten per cent better
        (0.91, "data", "1.0.1"),  # better, not by much
        (1.50, "data", "1.0.1"),  # worse
        (0.10, "other data", "1.0.1"),  # losses on different data do not compare
        (None, "data", "1.0.1"),
    ],
)
def test_a_significant_fall_of_the_loss_on_the_same_data_is_a_minor_version(
    loss: float | None, data: str, next_one: str
) -> None:
    state = _registered(submission("a", loss=1.0))
    assert str(state.next_version(submission("b", loss=loss, data=data))) == next_one


@given(
    st.sampled_from(["x", "y"]),
    st.sampled_from(["x", "y"]),
    st.none() | st.sampled_from(Bump),
    st.none() | st.floats(0, 10),
    st.none() | st.floats(0, 10),
)
def test_only_a_new_base_model_or_the_request_makes_a_major_version(
    old: str, new: str, requested: Bump | None, before: float | None, after: float | None
) -> None:
    part = bump_rule(VersionBasis(old, "d", before), VersionBasis(new, "d", after), requested)
    assert (part is Bump.MAJOR) == (old != new or requested is Bump.MAJOR)
