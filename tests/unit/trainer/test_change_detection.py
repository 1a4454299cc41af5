"""Detectors of a fall of ratings and of drifting prompts: how often they are wrong, and how soon they are right."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.retraining.change_detection import detect, distance_e_values, fall_e_values

RUNS = 300


def ratings(draw: random.Random, mean: float, count: int) -> list[float]:
    """Ratings as far from each other as they can be: 0 or 1."""
    return [float(draw.random() < mean) for _ in range(count)]


def test_ratings_that_have_not_fallen_give_no_more_false_alarms_than_promised() -> None:
    draw, threshold, count = random.Random(3), 400, 40
    alarms = sum(
        detect(fall_e_values(ratings(draw, 0.75, count), 0.75, 0.25), threshold).at is not None for _ in range(RUNS)
    )
    assert alarms / RUNS <= count / threshold


def test_ratings_that_have_fallen_are_found_within_a_few_dozen() -> None:
    draw = random.Random(4)
    found = [
        detect(fall_e_values([*ratings(draw, 0.9, 40), *ratings(draw, 0.4, 100)], 0.9, 0.4), 1000) for _ in range(RUNS)
    ]
    late = [one.at for one in found if one.at is not None and one.at > 40]
    assert len(late) >= 0.95 * RUNS
    assert sorted(late)[len(late) // 2] <= 40 + 50


def test_prompts_like_the_held_out_ones_give_no_more_false_alarms_than_promised_whatever_their_distribution() -> None:
    draw, threshold, count = random.Random(5), 400, 40
    for distance in (draw.random, lambda: draw.gauss(0, 1), lambda: float(draw.random() < 0.3)):
        alarms = 0
        for _ in range(RUNS):
            held_out = [distance() for _ in range(30)]
            alarms += detect(distance_e_values(held_out, [distance() for _ in range(count)]), threshold).at is not None
        assert alarms / RUNS <= count / threshold


def test_prompts_that_are_farther_away_are_found() -> None:
    draw = random.Random(6)
    for _ in range(50):
        held_out = [draw.gauss(0.3, 0.05) for _ in range(40)]
        recorded = [draw.gauss(0.3, 0.05) for _ in range(20)] + [draw.gauss(0.6, 0.05) for _ in range(40)]
        found = detect(distance_e_values(held_out, recorded), 1000)
        assert found.at is not None
        assert 20 < found.at <= 45


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.05, 1), st.floats(0.05, 1))
def test_e_values_are_never_negative_and_a_better_observation_never_gives_a_larger_one(
    values: list[float], expected: float, fall: float
) -> None:
    found = [bet for (bet,) in fall_e_values(sorted(values), expected, fall)]
    assert all(one >= 0 for one in found)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(found))


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.lists(st.floats(0, 2), max_size=40))
def test_the_same_distances_give_the_same_e_values(held_out: list[float], recorded: list[float]) -> None:
    once, again = list(distance_e_values(held_out, recorded)), list(distance_e_values(held_out, recorded))
    assert once == again
    assert all(bet > 0 for bets in once for bet in bets)


def test_an_e_value_has_a_mean_of_one_while_nothing_has_changed() -> None:
    bound, fall = 0.8, 0.4
    expected = bound + fall / 2
    ((good,),), ((bad,),) = (list(fall_e_values([value], expected, fall)) for value in (1.0, 0.0))
    assert bound * good + (1 - bound) * bad == pytest.approx(1)
