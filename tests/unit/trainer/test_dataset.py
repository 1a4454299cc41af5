"""Frozen data sets are a function of their samples alone."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.data.dataset import InvalidSample, Preference, Sample, freeze

pytestmark = pytest.mark.unit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SAMPLES = st.lists(st.builds(Sample, domain=st.just("shop"), prompt=TEXT, completion=TEXT), max_size=8)


@given(SAMPLES, st.randoms())
def test_order_and_repetition_do_not_change_a_data_set(samples: list[Sample], chance: object) -> None:
    shuffled = [*samples, *samples]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert freeze("shop", samples) == freeze("shop", shuffled)


@given(SAMPLES)
def test_the_id_is_the_digest_and_every_pair_is_a_line(samples: list[Sample]) -> None:
    frozen = freeze("shop", samples)
    assert frozen.dataset_id == hashlib.sha256(frozen.body).hexdigest()
    lines = [json.loads(line) for line in frozen.body.split(b"\n") if line]
    assert {(line["prompt"], line["completion"]) for line in lines} == {(s.prompt, s.completion) for s in samples}
    assert len(lines) == frozen.samples == len({(s.prompt, s.completion) for s in samples})


@given(SAMPLES)
def test_equal_pairs_of_two_domains_are_two_data_sets(samples: list[Sample]) -> None:
    other = [Sample("bank", sample.prompt, sample.completion) for sample in samples]
    assert not samples or freeze("shop", samples).dataset_id != freeze("bank", other).dataset_id


def test_rating_and_origin_are_no_part_of_the_content() -> None:
    assert Sample("shop", "p", "c").sample_id == Sample("shop", "p", "c", 4.0, "http", "x").sample_id


@pytest.mark.parametrize("text", ["", "  \n", "nul\x00", "half \ud800 pair", "x" * 200_001])
def test_text_that_cannot_be_stored_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(InvalidSample, match=r"^completion: "):
        Sample("shop", "p", text).check()


def test_two_equal_completions_are_no_preference() -> None:
    with pytest.raises(InvalidSample, match=r"^rejected: "):
        Preference("shop", "p", "same", "same").check()
