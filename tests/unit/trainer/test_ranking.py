"""Losses and measures of an order, against their definitions written out."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.training.objectives.ranking import (
    kendall_tau,
    listwise_loss,
    margin_loss,
    pairwise_accuracy,
    rrhf_loss,
)

pytestmark = [pytest.mark.unit, pytest.mark.requirement("TP-2.2")]

SCORES = st.lists(st.floats(-9, 0, width=32), min_size=2, max_size=6)


@given(SCORES, st.floats(0, 2, width=32))
def test_the_margin_grows_with_the_places_between(scores: list[float], margin: float) -> None:
    pairs = list(itertools.combinations(range(len(scores)), 2))
    expected = sum(max(0.0, margin * (j - i) - (scores[i] - scores[j])) for i, j in pairs) / len(pairs)
    assert float(margin_loss(torch.tensor(scores), margin)) == pytest.approx(expected, abs=1e-4)


@given(SCORES)
def test_rrhf_counts_wrong_pairs_and_the_best_completion(scores: list[float]) -> None:
    wrong = sum(max(0.0, scores[j] - scores[i]) for i, j in itertools.combinations(range(len(scores)), 2))
    assert float(rrhf_loss(torch.tensor(scores))) == pytest.approx(wrong - scores[0], abs=1e-4)


@given(SCORES)
def test_listwise_is_the_likelihood_of_drawing_the_list_in_order(scores: list[float]) -> None:
    drawn = [math.exp(scores[i]) / sum(map(math.exp, scores[i:])) for i in range(len(scores) - 1)]
    assert float(listwise_loss(torch.tensor(scores))) == pytest.approx(
        -sum(map(math.log, drawn)) / len(drawn), abs=1e-4
    )


def test_a_gradient_step_puts_a_list_in_order() -> None:
    for loss in (lambda s: margin_loss(s, 0.5), rrhf_loss, listwise_loss):
        scores = torch.tensor([-3.0, -2.0, -1.0], requires_grad=True)
        for _ in range(200):
            (gradient,) = torch.autograd.grad(loss(scores), scores)
            scores = (scores - 0.05 * gradient).detach().requires_grad_()
        assert pairwise_accuracy(scores.tolist()) > 0.5


def test_agreement_of_orders() -> None:
    assert kendall_tau([3, 2, 1]) == 1
    assert kendall_tau([1, 2, 3]) == -1
    assert kendall_tau([3, 1, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 1]) == 0
    assert pairwise_accuracy([3, 1, 2]) == pytest.approx(2 / 3)


@given(SCORES)
def test_kendall_and_accuracy_tell_the_same_where_no_scores_are_equal(scores: list[float]) -> None:
    if len(set(scores)) == len(scores):
        assert kendall_tau(scores) == pytest.approx(2 * pairwise_accuracy(scores) - 1)
