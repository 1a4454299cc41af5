"""A fault of one row, adapter or draw ends that row alone: its neighbours answer what they answer without it."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core import ArrowEngine, LoRAWeights, Request
from lora_core.sampling import GREEDY_BELOW, BrokenLogits, Sampler

POISON = 95
SHARP = {"temperature": 0.8, "top_p": 0.9}


@pytest.fixture
def engine(tiny_llama, tiny_tokenizer) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=6, max_rank=8)


def requests(*, poisoned: bool, adapter: str | None = None) -> list[Request]:
    """Three neighbours, greedy, sampled and with an adapter, and one row between them."""
    middle = Request([4, POISON, 6] if poisoned else [4, 5, 6], max_tokens=12, stop_ids=())
    return [
        Request([5, 17, 42, 8], max_tokens=12, stop_ids=()),
        middle,
        Request([9], max_tokens=12, seed=3, stop_ids=(), **SHARP),
        Request([11, 12, 13, 14, 15], adapter, max_tokens=12, stop_ids=()),
    ]


def answers(engine: ArrowEngine, wanted: list[Request], late: tuple[int, ...] = ()) -> tuple[list[list[int]], list]:
    """Tokens and fault of each row; the rows numbered in `late` join after the third step."""
    early = [one for number, one in enumerate(wanted) if number not in late]
    order = [number for number in range(len(wanted)) if number not in late]
    batch = engine.start(early)
    tokens: dict[int, list[int]] = {number: [] for number in range(len(wanted))}
    steps = 0
    while batch.alive:
        for row, token, logprob in batch.step():
            assert math.isfinite(logprob)
            tokens[order[row]].append(token)
        steps += 1
        if steps == 3:
            for number in late:
                (row,) = batch.add([wanted[number]])
                order.append(number)
                assert order[row] == number
    faults = {order[row]: batch.fault(row) for row in range(len(order))}
    reasons = {order[row]: batch.finish_reason(row) for row in range(len(order))}
    assert all((reasons[number] == "failed") == (faults[number] is not None) for number in faults)
    return [tokens[number] for number in range(len(wanted))], [faults[number] for number in range(len(wanted))]


@pytest.fixture
def poison(engine: ArrowEngine) -> Iterator[None]:
    """The model fails on every pass that reads a certain token, in its last layer, when caches are half written."""
    reads: list[bool] = []

    def look(_module: torch.nn.Module, _inputs: object, named: dict[str, torch.Tensor]) -> None:
        reads.append(bool((named["input_ids"] == POISON).any()))

    def fail(_module: torch.nn.Module, _inputs: object) -> None:
        if reads[-1]:
            raise RuntimeError("the arithmetic of this row failed")

    hooks = [
        engine.model.model.register_forward_pre_hook(look, with_kwargs=True),
        engine.model.model.layers[-1].register_forward_pre_hook(fail),
    ]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("late", [(), (1,), (0, 2)])
def test_a_row_whose_pass_fails_ends_alone_and_its_neighbours_answer_the_same(
    engine: ArrowEngine, poison: None, make_card, late: tuple[int, ...]
) -> None:
    engine.load(make_card("a", 4, 1))
    wanted, none = answers(engine, requests(poisoned=False, adapter="a"), late)
    assert none == [None] * 4
    found, faults = answers(engine, requests(poisoned=True, adapter="a"), late)
    assert [fault is not None for fault in faults] == [False, True, False, False]
    assert str(faults[1]) == "the arithmetic of this row failed"
    assert [found[number] for number in (0, 2, 3)] == [wanted[number] for number in (0, 2, 3)]
    assert len(found[0]) == 12


def test_a_row_that_fails_in_the_middle_of_its_answer_ends_there(engine: ArrowEngine) -> None:
    wanted, _ = answers(engine, requests(poisoned=False))

    def fail(_module: torch.nn.Module, _inputs: object, named: dict[str, torch.Tensor]) -> None:
        if int(named["attention_mask"].sum(1).max()) >= 5 + 11:  # the longest prompt, before its twelfth token
            raise RuntimeError("too long for this arithmetic")

    hook = engine.model.model.register_forward_pre_hook(fail, with_kwargs=True)
    found, faults = answers(engine, requests(poisoned=False))
    hook.remove()
    assert [fault is not None for fault in faults] == [False, False, False, True]
    assert found == [*wanted[:3], wanted[3][:11]]


def test_rows_that_fail_together_and_not_alone_go_on_apart(engine: ArrowEngine) -> None:
    wanted, _ = answers(engine, requests(poisoned=False))
    passes: list[int] = []

    def fail(_module: torch.nn.Module, _inputs: object, named: dict[str, torch.Tensor]) -> None:
        passes.append(len(named["input_ids"]))
        if len(named["input_ids"]) > 2:
            raise MemoryError("no room for so many rows")

    hook = engine.model.model.register_forward_pre_hook(fail, with_kwargs=True)
    found, faults = answers(engine, requests(poisoned=False))
    hook.remove()
    assert faults == [None] * 4
    assert found == wanted
    assert passes.count(4) == 1  # they were not put together again


def test_an_adapter_whose_products_leave_the_range_fails_its_own_rows_alone(engine: ArrowEngine, make_card) -> None:
    engine.load(make_card("a", 4, 1))
    wanted, _ = answers(engine, requests(poisoned=False, adapter="a"))
    card = make_card("broken", 4, 2)
    large = {
        name: LoRAWeights(own.a * np.float32(1e25), own.b * np.float32(1e25)) for name, own in card.weights.items()
    }
    engine.load(replace(card, weights=large))
    others = requests(poisoned=False, adapter="a")
    found, faults = answers(engine, [*others[:3], Request([7, 8], "broken", max_tokens=12, stop_ids=()), others[3]])
    assert isinstance(faults[3], BrokenLogits)
    assert [*found[:3], found[4]] == wanted


def test_a_sampler_that_fails_ends_its_row_alone(engine: ArrowEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = answers(engine, requests(poisoned=False))
    draw = Sampler._draw

    def failing(self: Sampler, probabilities: torch.Tensor) -> int:
        if self._top_p == 0.5:
            raise RuntimeError("nothing to draw from")
        return draw(self, probabilities)

    monkeypatch.setattr(Sampler, "_draw", failing)
    others = requests(poisoned=False)
    others[1] = Request([4, 5, 6], max_tokens=12, temperature=1.0, top_p=0.5, stop_ids=())
    found, faults = answers(engine, others)
    assert str(faults[1]) == "nothing to draw from"
    assert [found[number] for number in (0, 2, 3)] == [wanted[number] for number in (0, 2, 3)]


def test_rows_that_failed_give_their_slots_back(engine: ArrowEngine, poison: None, make_card) -> None:
    engine.load(make_card("a", 4, 1))
    answers(engine, [Request([POISON], "a", max_tokens=3), Request([5], "a", max_tokens=3, stop_ids=())])
    engine.unload("a")
    assert engine.free_slots == 6


def test_generate_raises_what_a_row_failed_with(engine: ArrowEngine, poison: None) -> None:
    with pytest.raises(RuntimeError, match="the arithmetic of this row failed"):
        engine.generate([f"w5 w{POISON}", "w6"], max_tokens=3)


@settings(max_examples=300, deadline=None)
@given(
    temperature=st.floats(0, 100) | st.sampled_from([5e-324, 1e-310, 1e-45, 1e-38, GREEDY_BELOW, 1e-5]),
    top_p=st.floats(0, 1, exclude_min=True) | st.sampled_from([5e-324, 1e-310, 1e-45, 1e-30]),
    seed=st.none() | st.integers(-(2**63), 2**64 - 1),
    logits=st.lists(
        st.floats(-(2.0**100), 2.0**100, width=32) | st.just(float("-inf")) | st.floats(-20, 20, width=32),
        min_size=1,
        max_size=40,
    ).filter(lambda values: max(values) > float("-inf")),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_every_sampling_value_that_is_accepted_gives_a_token_and_a_finite_likelihood(
    temperature: float, top_p: float, seed: int | None, logits: list[float], dtype: torch.dtype
) -> None:
    sampler = Sampler(Request([1], temperature=temperature, top_p=top_p, seed=seed))
    given_logits = torch.tensor(logits).to(dtype)
    for _ in range(3):
        token, logprob = sampler.pick(given_logits)
        assert 0 <= token < len(logits)
        assert logits[token] > float("-inf")
        assert math.isfinite(logprob)


@pytest.mark.parametrize("broken", [[1.0, float("nan")], [1.0, float("inf")], [float("-inf")] * 2])
def test_logits_that_are_no_numbers_are_a_fault_of_their_row(broken: list[float]) -> None:
    for temperature in (0.0, 1.0):
        with pytest.raises(BrokenLogits):
            Sampler(Request([1], temperature=temperature)).pick(torch.tensor(broken))


def test_a_temperature_near_zero_is_greedy() -> None:
    logits = torch.tensor([1.0, 1.5, 1.4])
    assert [Sampler(Request([1], temperature=GREEDY_BELOW / 2)).pick(logits)[0] for _ in range(20)] == [1] * 20
