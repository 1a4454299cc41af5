"""The memory of slots: dense, fetched ahead, given back, and never with numbers that are not finite."""

import mmap
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_core import InvalidAdapter
from lora_core.slots.slot_bank import SlotBank
from lora_core.slots.slot_memory import SlotMemory
from tests.unit.lora_core.test_slots import IDS, alone
from tests.unit.lora_core.test_slots import engine as engine


@pytest.mark.requirement("LI-7.6")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_never_reach_a_slot_that_serves(engine, tiny_llama, make_card, value) -> None:
    card = make_card("bad", 4, 1)
    card.weights["model.layers.2.mlp.down_proj"].b[3, 1] = value
    with pytest.raises(InvalidAdapter, match="finite") as error:
        engine.load(card)
    assert error.value.field == "model.layers.2.mlp.down_proj b"
    assert engine.free_slots == 8
    good = make_card("good", 4, 2, only=("q_proj",))
    engine.load(good)
    with engine.rows(["good"]):
        logits = tiny_llama(IDS).logits
    torch.testing.assert_close(logits, alone(tiny_llama, good), atol=2e-5, rtol=0)


@pytest.mark.requirement("LI-6.5")
def test_a_slot_is_one_dense_piece_of_memory_at_any_rank(tiny_llama, make_card) -> None:
    bank = SlotBank(tiny_llama, slots=4, max_rank=64)
    card = make_card("one", 4, 1)
    slot = bank.put(card)
    (memory,) = [memory for memory in bank._memories.values() if memory._numbers is not None]
    assert torch.count_nonzero(memory.numbers[slot, : card.parameters]) == card.parameters
    assert not torch.count_nonzero(memory.numbers[slot, card.parameters :])
    assert not torch.count_nonzero(memory.numbers[slot + 1 :])


def test_a_slots_memory_is_fetched_ahead_without_changing_its_numbers() -> None:
    memory = SlotMemory(slots=2, max_rank=64, like=torch.empty(0))
    memory.reserve(100_000)
    memory.numbers[1, 5] = 7.0
    thread = memory.fetch_ahead(1, 16)
    assert thread is not None
    thread.join()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory.numbers[1, 6:1_600_000] = 1.0  # 6.4 MB: 1,560 pages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100
    assert memory.numbers[1, :7].tolist() == [0, 0, 0, 0, 0, 7, 1]
    assert not torch.count_nonzero(memory.numbers[0])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.requirement("AS-6.1")
def test_the_memory_of_a_slot_that_is_released_goes_back_to_the_system_and_its_neighbours_keep_theirs() -> None:
    memory = SlotMemory(slots=3, max_rank=64, like=torch.empty(0))
    memory.reserve(150_001)  # 38 MB a slot, whose ends lie within pages
    for slot in range(3):
        memory.prepare(slot, 64, memory.unit * 64)
        memory.numbers[slot] = slot + 1.0
    before = resident_bytes()
    memory.release(1)
    assert before - resident_bytes() > 35 * 1024**2
    assert not torch.count_nonzero(memory.numbers[1])
    assert torch.all(memory.numbers[0] == 1.0)
    assert torch.all(memory.numbers[2] == 3.0)


def test_an_engine_that_was_trimmed_answers_as_before_and_its_empty_slots_take_adapters(engine, make_card) -> None:
    cards = [make_card(name, rank, seed) for seed, (name, rank) in enumerate([("a", 4), ("b", 16), ("c", 4)])]
    for card in cards:
        engine.load(card)
    probes = [engine.probe(IDS[0].tolist(), card.name) for card in cards]
    engine.unload("b")
    engine.trim()
    assert engine.probe(IDS[0].tolist(), "a") == probes[0]
    engine.load(cards[1])
    assert [engine.probe(IDS[0].tolist(), card.name) for card in cards] == probes
