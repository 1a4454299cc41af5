"""Ids of answers: they name the adapter, and nobody can make one up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.errors import NotFound
from services.inference.generation_ids import GenerationIds, author_tag

IDS = GenerationIds(b"shared by all replicas")


@given(st.text(max_size=80).filter(lambda name: not name.startswith("@")))
def test_an_id_gives_back_its_adapter_in_another_process(adapter_id: str) -> None:
    made = IDS.new(adapter_id)
    assert GenerationIds(b"shared by all replicas").adapter_id(made) == adapter_id


def test_two_answers_of_one_adapter_have_different_ids() -> None:
    assert IDS.new("law-lora-v1.0.0") != IDS.new("law-lora-v1.0.0")


@given(st.text())
def test_an_id_that_is_not_ours_is_refused(made_up: str) -> None:
    with pytest.raises(NotFound):
        IDS.adapter_id(made_up)


@given(st.integers(min_value=4), st.sampled_from("abcXYZ019-_"))
def test_a_changed_id_is_refused_or_the_same(place: int, character: str) -> None:
    made = IDS.new("law-lora-v1.0.0")
    place = 4 + place % (len(made) - 4)
    changed = made[:place] + character + made[place + 1 :]
    if changed == made:
        return
    try:
        named = IDS.adapter_id(changed)
    except NotFound:
        return
    # Base64 has spare bits in its last character: what differs only there is the same id.
    assert place == len(made) - 1
    assert named == "law-lora-v1.0.0"


def test_an_id_signed_with_another_secret_is_refused() -> None:
    with pytest.raises(NotFound):
        IDS.adapter_id(GenerationIds(b"another fleet").new("law-lora-v1.0.0"))


@given(st.lists(st.sampled_from(["law-lora-v1.0.0", "law-lora-v1.1.0", "", "@law"]), min_size=2, max_size=8))
def test_a_comparison_gives_back_the_answers_that_it_is_of(names: list[str]) -> None:
    made = IDS.side_by_side(names)
    elsewhere = GenerationIds(b"shared by all replicas", "another")
    assert elsewhere.compared(made.comparison_id) == made.generation_ids
    assert len(set(made.generation_ids)) == len(names)
    told = [elsewhere.adapter_id(one) or f"@{elsewhere.base_domain(one)}".rstrip("@") for one in made.generation_ids]
    assert told == names


def test_an_id_tells_which_replica_answered() -> None:
    a, b = (GenerationIds(b"shared by all replicas", name) for name in "ab")
    made = [a.new("law-lora-v1.0.0"), *a.side_by_side(["x", "y"]).generation_ids]
    assert {b.author(one) for one in made} == {author_tag("a")} != {author_tag("b")}


@given(st.text())
def test_a_comparison_that_is_not_ours_is_refused(made_up: str) -> None:
    with pytest.raises(NotFound):
        IDS.compared(made_up)


def test_an_answers_id_is_no_comparisons() -> None:
    with pytest.raises(NotFound):
        IDS.compared("cmp-" + IDS.new("law-lora-v1.0.0").removeprefix("gen-"))
