"""What log-probabilities of the likeliest tokens prove of logits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events.v1 import Probe
from services.inference.slots.states import LoadFailed
from services.inference.vllm.loader import least_difference, require_recorded

logits = st.dictionaries(st.integers(0, 50), st.floats(-30, 30), min_size=3, max_size=12)


def _recorded(logits: dict[int, float]) -> Probe:
    return Probe(prompt="?", top_ids=tuple(logits), top_logits=tuple(logits.values()), max_delta=1.0)


@given(logits, st.floats(-50, 50))
def test_logits_are_met_by_log_probabilities_that_differ_by_a_common_number(
    logits: dict[int, float], shift: float
) -> None:
    require_recorded(_recorded(logits), {token: logit - shift for token, logit in logits.items()}, allowed=1e-9)


@given(logits, st.data())
def test_one_token_that_is_off_by_more_than_both_ends_of_the_tolerance_is_found(
    logits: dict[int, float], data: st.DataObject
) -> None:
    token = data.draw(st.sampled_from(sorted(logits)))
    logprobs = {**logits, token: logits[token] + 0.21}
    require_recorded(_recorded(logits), {**logits, token: logits[token] + 0.19}, allowed=0.1)
    with pytest.raises(LoadFailed, match="recorded logits") as failed:
        require_recorded(_recorded(logits), logprobs, allowed=0.1)
    assert failed.value.code == "effect_differs"


def test_a_recorded_token_that_is_not_among_the_likeliest_is_another_effect() -> None:
    with pytest.raises(LoadFailed, match=r"\[7\]"):
        require_recorded(_recorded({7: 3.0, 8: 2.0}), {8: -1.0, 9: -2.0}, allowed=0.1)


@given(logits, logits)
def test_the_difference_is_never_more_than_what_the_whole_lists_would_show(
    one: dict[int, float], other: dict[int, float]
) -> None:
    shown = least_difference(one, other)
    # Tokens that a list lacks may be anything up to its last one: the closest to the other list is no difference.
    worst = max(abs(one.get(token, min(one.values())) - other.get(token, min(other.values()))) for token in one | other)
    assert 0 <= shown <= worst


def test_the_same_list_shows_no_difference_and_a_lost_favourite_a_large_one() -> None:
    assert least_difference({1: -0.5, 2: -1.0}, {1: -0.5, 2: -1.0}) == 0
    assert least_difference({3: -0.25, 2: -4.0}, {1: -0.25, 2: -2.0}) == 3.75
