"""Ids of answers: they name the adapter, and nobody can make one up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.errors import NotFound
from services.inference.generation_ids import GenerationIds

IDS = GenerationIds(b"shared by all replicas")


@given(st.text(max_size=80))
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
