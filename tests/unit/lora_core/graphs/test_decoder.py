"""The graph decoder with direct calls in place of graphs: the engine's own answers, whatever else is decoded."""

import pytest
import torch

from lora_core import ArrowEngine, Request
from lora_core.graphs.decoder import Draw, GraphDecoder

PROMPTS = [[5, 17, 42, 8], [9], [11, 12, 13, 14, 15, 16, 17, 18, 19], [60, 61, 62, 63]]


@pytest.fixture
def engine(tiny_llama, tiny_tokenizer) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=6, max_rank=8)


def decoder(engine: ArrowEngine, rows: int = 8, positions: int = 64) -> GraphDecoder:
    return GraphDecoder(engine.model, engine._bank, rows, positions)


def wanted(engine, prompts, adapters, count):
    batch = engine.start([Request(p, a, max_tokens=count, stop_ids=()) for p, a in zip(prompts, adapters, strict=True)])
    tokens = [[] for _ in prompts]
    for row, token, logprob in batch:
        tokens[row].append((token, pytest.approx(logprob, abs=1e-4)))
    return tokens


def run(decoder, count, places):
    """`count` tokens of each place; every step's tokens are collected while the next one is under way."""
    found = {place: [] for place in places}
    for _ in range(count):
        decoder.launch()
    while any(len(tokens) < count for tokens in found.values()):
        for place, drawn in decoder.collect().tokens.items():
            if len(found[place]) < count:
                found[place].append(drawn)
    return [found[place] for place in places]


def test_rows_of_mixed_ranks_and_base_rows_get_the_tokens_that_the_engine_gives_them(engine, make_card) -> None:
    names = ["a", None, "b", "c"]
    slots = [
        engine.load(make_card(name, rank, seed)).slot
        for seed, (name, rank) in enumerate((("a", 4), ("b", 8), ("c", 1)))
    ]
    expected = wanted(engine, PROMPTS, names, 20)
    ours = decoder(engine)
    places = ours.join(PROMPTS, [slots[0], None, slots[1], slots[2]], [Draw()] * 4)
    assert run(ours, 20, places) == expected


def test_rows_join_and_leave_between_steps_without_changing_the_others(engine, make_card) -> None:
    slot = engine.load(make_card("a", 4)).slot
    expected = wanted(engine, PROMPTS, ["a", None, "a", None], 12)
    ours = decoder(engine, rows=4)
    first = ours.join(PROMPTS[:2], [slot, None], [Draw()] * 2)
    found = {place: [] for place in range(4)}

    def take() -> None:
        for place, drawn in ours.collect().tokens.items():
            found[place].append(drawn)

    take(), take()  # prompts of two lengths were read in two passes
    for _ in range(5):
        ours.launch()
        take()
    ours.leave(first[1])
    assert found[first[1]] == expected[1][:6]
    late = ours.join(PROMPTS[2:], [slot, None], [Draw()] * 2)
    assert late == [1, 2], "the lowest free places"
    found[1], found[2] = [], []
    take(), take()
    for _ in range(11):
        ours.launch()
        take()
    assert found[0][:12] == expected[0]
    assert found[1] == expected[2]
    assert found[2] == expected[3]


def test_compaction_moves_a_row_with_all_that_it_is_computed_from(engine, make_card) -> None:
    slot = engine.load(make_card("a", 4)).slot
    expected = wanted(engine, PROMPTS[3:], ["a"], 12)
    ours = decoder(engine)
    places = ours.join([*PROMPTS[:2], PROMPTS[3]], [None, None, slot], [Draw()] * 3)
    for _ in range(4):
        ours.launch()
    ours.leave(places[0])
    ours.leave(places[1])
    taken = [drawn for _ in range(6) for drawn in ours.collect().tokens.values()]
    assert ours.compact() == {2: 0}
    for _ in range(7):
        ours.launch()
        taken += ours.collect().tokens.values()
    assert taken == expected[0]


def test_the_same_seed_draws_the_same_tokens_beside_any_neighbours(engine, make_card) -> None:
    slot = engine.load(make_card("a", 4)).slot
    sampled = Draw(temperature=0.8, top_p=0.9, seed=2**64 - 3)
    alone, beside = decoder(engine), decoder(engine)
    [only] = run(alone, 16, alone.join(PROMPTS[:1], [slot], [sampled]))
    places = beside.join([PROMPTS[1], PROMPTS[0]], [None, slot], [Draw(1.0, 1.0, 5), sampled])
    tokens = run(beside, 16, places)[1]
    assert [token for token, _ in tokens] == [token for token, _ in only]
    other = decoder(engine)
    [drawn] = run(other, 16, other.join(PROMPTS[:1], [slot], [Draw(0.8, 0.9, 4)]))
    assert [token for token, _ in drawn] != [token for token, _ in only]


def test_a_graph_is_made_for_a_bucket_once_and_for_longer_rows_again(engine) -> None:
    ours = decoder(engine, rows=4, positions=200)
    places = ours.join([[5] * 120], [None], [Draw()])
    run(ours, 4, places)
    assert ours.captured == 1
    run(ours, 10, places)
    assert ours.captured == 2


def test_what_has_no_room_or_no_graph_is_refused(engine, make_card) -> None:
    plain = engine.load(make_card("a", 4)).slot
    ours = decoder(engine, rows=1, positions=8)
    assert ours.serves(plain)
    with pytest.raises(ValueError, match="expected 1 to 7"):
        ours.join([[5] * 8], [None], [Draw()])
    ours.join([[5] * 6], [None], [Draw()])
    with pytest.raises(ValueError, match="0 free places of 1"):
        ours.join([[5]], [None], [Draw()])
    ours.launch()
    ours.launch()
    with pytest.raises(ValueError, match="all of its 8 positions"):
        ours.launch()


def test_the_module_tree_is_as_before_after_a_step(engine, make_card) -> None:
    slot = engine.load(make_card("a", 4)).slot
    before = [sorted(vars(module)) for module in engine.model.modules()]
    ours = decoder(engine)
    ours.join([PROMPTS[0]], [slot], [Draw()])
    ours.step()
    assert [sorted(vars(module)) for module in engine.model.modules()] == before
    assert torch.is_inference_mode_enabled() is False
