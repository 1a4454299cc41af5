"""The memory of slots: dense, fetched ahead, given back, and never with numbers that are not finite."""

import mmap
import random
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lora_core import InvalidAdapter, LoRACard, LoRAWeights, SlotsFull
from lora_core.slots.slot_bank import SlotBank
from lora_core.slots.slot_memory import SlotMemory, resident_when_written, zeros
from tests.unit.lora_core.test_slots import IDS, alone
from tests.unit.lora_core.test_slots import engine as engine

HUGE_PAGE = 2 * 1024**2
"""What the system provides at once."""


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


@pytest.mark.requirement("AS-6.1")
def test_adapters_share_the_memory_of_full_slots_by_their_ranks(tiny_llama, make_card) -> None:
    bank = SlotBank(tiny_llama, slots=8, max_rank=8, full_slots=2)
    placed = [bank.put(make_card(f"{number}", 4, number)) for number in range(3)]
    assert not bank.fits(5)
    with pytest.raises(SlotsFull, match=r"take 12 of 16 ranks: unload one before 'large' of rank 8"):
        bank.put(make_card("large", 8, 9))
    assert bank.fits(8, instead_of=placed[1])
    bank.put(make_card("3", 4, 3))
    assert not bank.fits(1)
    bank.drop(placed[1])
    bank.put(make_card("small", 1, 4))
    assert bank.free == 4


@pytest.mark.requirement("AS-6.1")
def test_memory_stays_within_that_of_full_slots_whatever_ranks_come_and_go() -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 4, "vocab_size": 96}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).eval()
    bank = SlotBank(model, slots=24, max_rank=32, full_slots=3)
    cards = {rank: ones(bank, rank) for rank in (1, 4, 16, 32)}
    full = 3 * 32 * 4 * max(memory.unit for memory in bank._memories.values())
    assert full > 25 * 1024**2
    choice = random.Random(3)
    held: list[int] = []
    before = resident_bytes()
    for _ in range(80):
        rank = choice.choice(list(cards))
        while not bank.fits(rank):
            bank.drop(held.pop(choice.randrange(len(held))))
        held.append(bank.put(cards[rank]))
        for thread in threading.enumerate():
            if thread.name == "slot-memory":
                thread.join()
        assert resident_bytes() - before < 1.1 * full + bank.slots * HUGE_PAGE


def ones(bank: SlotBank, rank: int) -> LoRACard:
    weights = {
        name: LoRAWeights(np.ones((rank, columns), np.float32), np.ones((rows, rank), np.float32))
        for name, (rows, columns) in bank.shapes.items()
        if name.endswith("_proj")
    }
    targets = tuple(sorted({name.rpartition(".")[2] for name in weights}))
    return LoRACard(name=f"rank {rank}", rank=rank, alpha=1.0, target_modules=targets, weights=weights)


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


@pytest.mark.parametrize(
    ("device", "overcommit", "expected"), [("cpu", "0", True), ("cpu", "2", False), ("meta", "0", False)]
)
def test_memory_is_promised_only_where_it_takes_nothing_before_it_is_written(
    monkeypatch, device, overcommit, expected
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: f"{overcommit}\n")
    assert resident_when_written(torch.device(device)) is expected
    made = zeros((3, 5), torch.empty(0, dtype=torch.bfloat16))
    assert (made.dtype, made.shape, int(torch.count_nonzero(made))) == (torch.bfloat16, (3, 5), 0)
