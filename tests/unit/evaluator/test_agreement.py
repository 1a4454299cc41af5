"""How far a judge agrees with people."""

from __future__ import annotations

import numpy as np
import pytest

from services.evaluator.judging.agreement import Labelled, agreement, krippendorff, pairwise_accuracy


def pairs(*scores: tuple[float, float], lengths: list[int] | None = None) -> list[Labelled]:
    return [Labelled(judge, human, (lengths or [10] * len(scores))[i]) for i, (judge, human) in enumerate(scores)]


def test_the_same_scores_agree_fully():
    found = agreement(pairs((10, 10), (40, 40), (70, 70), (90, 90), (95, 95)))
    assert found is not None
    assert (found.alpha.value, found.bias) == (1.0, 0.0)
    assert found.pairwise is not None
    assert found.pairwise.value == 1.0


def test_alpha_is_that_of_its_definition():
    """Each pair of all six scores, and each answer's own pair, by hand: De = 2 * sum of squares / (n (n - 1))."""
    judge, human = np.array([0.0, 50.0, 100.0]), np.array([10.0, 50.0, 80.0])
    pooled = [0, 50, 100, 10, 50, 80]
    among = sum((a - b) ** 2 for a in pooled for b in pooled) / (6 * 5)
    assert krippendorff(judge, human) == pytest.approx(1 - (100 + 0 + 400) / 3 / among)


def test_scores_drawn_apart_from_each_other_have_an_interval_around_0():
    draws = np.random.default_rng(7).uniform(0, 100, (2, 150))
    found = agreement([Labelled(float(a), float(b), 5) for a, b in draws.T])
    assert found is not None
    assert found.alpha.low < 0 < found.alpha.high
    assert found.pairwise is not None
    assert found.pairwise.low < 0.5 < found.pairwise.high


def test_opposite_scores_order_no_pair_alike():
    human = np.array([0.0, 30.0, 60.0, 90.0])
    assert pairwise_accuracy(90 - human, human) == 0
    assert pairwise_accuracy(np.full(4, 50.0), human) == 0.5
    assert pairwise_accuracy(human, np.array([50.0, 51.0, 52.0, 53.0])) is None


def test_a_judge_that_likes_long_answers_is_seen():
    found = agreement(
        pairs((50, 50), (60, 50), (70, 50), (80, 50), (90, 50), (95, 60), lengths=[10, 20, 30, 40, 50, 55])
    )
    assert found is not None
    assert found.bias == pytest.approx((0 + 10 + 20 + 30 + 40 + 35) / 6)
    assert found.length_bias is not None
    assert found.length_bias > 0.9


@pytest.mark.parametrize("scores", [[], [(1, 2), (3, 4), (5, 6), (7, 8)], [(50, 50)] * 9])
def test_too_few_answers_or_no_differences_tell_nothing(scores):
    assert agreement(pairs(*scores)) is None
