"""Drawing on the device: the distribution asked for, by seed and counter alone."""

import torch

from lora_core.graphs.draw import drawn, log_probabilities, uniform


def draws(logits, temperature, top_p, count=4000):
    rows = logits.expand(count, -1)
    full = torch.full((count,), 1.0)
    seeds = torch.full((count,), 7, dtype=torch.long)
    tokens = drawn(rows, full * temperature, full * top_p, seeds, torch.arange(count))
    return torch.bincount(tokens, minlength=logits.shape[0]) / count


def test_uniform_numbers_fill_their_range_and_differ_by_seed_and_counter() -> None:
    counters = torch.arange(20_000)
    numbers = uniform(torch.full_like(counters, -3), counters)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert torch.histc(numbers, 10, 0, 1).sub(2000).abs().max() < 200
    assert len(numbers.unique()) == len(numbers)
    assert not torch.equal(numbers, uniform(torch.full_like(counters, 4), counters))


def test_tokens_come_as_often_as_the_temperature_makes_them_likely() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits / temperature).softmax(-1)
        assert (draws(logits, temperature, 1.0) - expected).abs().max() < 0.03


def test_top_p_keeps_the_tokens_whose_mass_before_them_is_below_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    found = draws(logits, 1.0, 0.75)
    assert (found - torch.tensor([0.625, 0.375, 0, 0])).abs().max() < 0.03
    assert draws(logits, 1.0, 0.01)[0] == 1, "the likeliest always stays"


def test_a_row_of_temperature_0_is_greedy_beside_rows_that_are_drawn() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(3, dtype=torch.long)
    tokens = drawn(logits, torch.tensor([0.0, 1.0, 0.0]), torch.ones(3), zero, zero)
    assert tokens[0] == logits[0].argmax()
    assert tokens[2] == logits[2].argmax()


def test_log_probabilities_are_the_models_own_and_nan_where_logits_are_no_numbers() -> None:
    logits = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))
    logits[1, 3] = float("nan")
    found = log_probabilities(logits, torch.tensor([4, 4]))
    assert torch.allclose(found[0], logits[0].log_softmax(-1)[4])
    assert found[1].isnan()
