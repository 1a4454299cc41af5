"""Adapters that come into use are moved side by side, and compute what they computed before."""

import random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_core import ArrowEngine, Request
from lora_core.slots.slot_bank import SlotBank
from tests.unit.lora_core.test_slots import IDS, alone, with_vectors

PROMPT = IDS[0].tolist()


@pytest.fixture
def engine(tiny_llama: Any, tiny_tokenizer: Any) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=24, max_rank=8, full_slots=16)


def slot_of(engine: ArrowEngine, name: str) -> int:
    return engine.bind_report(name).slot


def test_adapters_that_are_used_at_once_come_to_lie_side_by_side_however_they_were_loaded(engine, make_card) -> None:
    for number in range(24):
        engine.load(make_card(f"{number}", 4, number))
    used = ["2", "9", "13", "17", "22", "23"]
    batch = engine.start([Request(PROMPT, max_tokens=4, adapter=name) for name in used])
    slots = sorted(slot_of(engine, name) for name in used)
    assert slots[-1] < 9
    assert slots == list(range(slots[0], slots[0] + 6))
    assert sorted(slot_of(engine, f"{number}") for number in range(24)) == list(range(24))
    batch.close()
    # Those lie well: nothing is moved for them again.
    again = engine.start([Request(PROMPT, max_tokens=4, adapter=name) for name in used])
    assert sorted(slot_of(engine, name) for name in used) == slots
    again.close()


def test_an_adapter_in_use_is_never_moved_and_a_retired_one_keeps_its_slot_until_its_rows_end(
    engine, make_card, tiny_llama
) -> None:
    cards = [make_card(f"{number}", 4, number) for number in range(20)]
    for card in cards:
        engine.load(card)
    running = engine.start([Request(PROMPT, max_tokens=6, adapter="0"), Request(PROMPT, max_tokens=6, adapter="1")])
    tokens = [running.step()]
    engine.unload("1")
    others = engine.start([Request(PROMPT, max_tokens=1, adapter=f"{number}") for number in (5, 15, 18, 19)])
    assert {slot_of(engine, f"{number}") for number in (5, 15, 18, 19)} & {0, 1} == set()
    list(others)
    while running.alive:
        tokens.append(running.step())
    by_itself = [token for _, token, _ in engine.start([Request(PROMPT, max_tokens=6, adapter="0")])]
    assert [token for step in tokens for row, token, _ in step if row == 0] == by_itself
    engine.load(cards[1])
    with engine.rows(["1"]):
        found = tiny_llama(IDS[:1]).logits
    torch.testing.assert_close(found, alone(tiny_llama, cards[1], IDS[:1]), atol=2e-5, rtol=0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.randoms(use_true_random=False))
def test_whatever_is_exchanged_each_adapter_computes_what_it_did(choice: random.Random, tiny_llama, make_card) -> None:
    cards = [
        make_card("one", 1, 1),
        make_card("four", 4, 2),
        make_card("few modules", 4, 3, only=("q_proj", "down_proj")),
        make_card("embedding", 4, 4, only=("_proj", "embed_tokens")),
        with_vectors(make_card("dora", 4, 5), magnitude=0.8),
        with_vectors(make_card("biased", 8, 6), lora_bias=0.1),
    ]
    bank = SlotBank(tiny_llama, slots=8, max_rank=8, full_slots=2)
    held: dict[int, int] = {}
    for _ in range(12):
        number = choice.randrange(len(cards))
        if number in held:
            bank.drop(held.pop(number))
        elif bank.fits(cards[number].max_rank):
            held[number] = bank.put(cards[number])
        if held:
            slot, other = held[choice.choice(sorted(held))], choice.randrange(8)
            bank.exchange(slot, other)
            held = {own: {slot: other, other: slot}.get(at, at) for own, at in held.items()}
        if choice.random() < 0.2:
            bank.trim()
    assert sorted(slot for slot, rank in enumerate(bank.held_ranks) if rank) == sorted(held.values())
    for number, slot in held.items():
        with torch.inference_mode(), bank.rows(bank.plan([((slot, 1.0),)])):
            found = tiny_llama(IDS[:1]).logits
        torch.testing.assert_close(found, alone(tiny_llama, cards[number], IDS[:1]), atol=2e-5, rtol=0)


def test_a_merged_adapter_stays_merged_where_it_is_moved_to(engine, tiny_llama, make_card) -> None:
    for number in range(20):
        engine.load(make_card(f"{number}", 4, number))
    engine.merge("19")
    with engine.rows(["0"]):
        pass
    batch = engine.start([Request(PROMPT, max_tokens=1, adapter=name) for name in ("0", "19")])
    assert slot_of(engine, "19") < 5
    batch.close()
    with engine.rows(["19"]):
        found = tiny_llama(IDS[:1]).logits
    torch.testing.assert_close(found, alone(tiny_llama, make_card("19", 4, 19), IDS[:1]), atol=2e-5, rtol=0)
