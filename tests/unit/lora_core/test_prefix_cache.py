"""Beginnings of prompts are computed once for one adapter and scope, never shared beyond, and bounded by bytes."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_core import ArrowEngine, Request
from lora_core.forward_pass import Inputs
from lora_core.lease import Lease
from lora_core.prefix_cache import BLOCK, PrefixCache
from lora_core.sampling import Adapters
from tests.unit.lora_core.conftest import MakeCard

SYSTEM = [2 + (7 * n) % 90 for n in range(3 * BLOCK + 5)]
MANY = 1 << 30


@pytest.fixture
def tokens_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each forward pass, over its rows."""
    seen: list[int] = []
    read = Lease.read

    def counted(self: Lease, plan: object, inputs: Inputs, cache: object) -> torch.Tensor | None:
        seen.append(inputs.ids.numel())
        return read(self, plan, inputs, cache)  # type: ignore[arg-type]

    monkeypatch.setattr(Lease, "read", counted)
    return seen


def engine_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, make_card: MakeCard, size: int
) -> ArrowEngine:
    engine = ArrowEngine(model, tokenizer, slots=6, max_rank=8, prefix_bytes=size)
    for seed, name in enumerate("ab"):
        engine.load(make_card(name, 4, seed))
    return engine


def request(end: Sequence[int], adapter: Adapters, scope: str | None = "shop") -> Request:
    return Request([*SYSTEM, *end], adapter, scope, max_tokens=5, stop_ids=())


def answers(engine: ArrowEngine, requests: Sequence[Request], late: Sequence[Request] = ()) -> list[list[int]]:
    batch = engine.start(requests)
    found: list[list[int]] = [[] for _ in (*requests, *late)]
    batch_step = 0
    while batch.alive:
        for row, token, _ in batch.step():
            found[row].append(token)
        batch_step += 1
        if batch_step == 1 and late:
            batch.add(late)
    return found


@pytest.mark.parametrize("prefill", [20, 256])
def test_rows_with_one_system_prompt_answer_as_without_sharing_and_read_it_once_for_each_adapter(
    tiny_llama, tiny_tokenizer, make_card: MakeCard, tokens_read: list[int], prefill: int
) -> None:
    engine = engine_of(tiny_llama, tiny_tokenizer, make_card, MANY)
    engine._prefill_tokens = prefill
    mix = {"a": 0.5, "b": 0.5}
    ends = [[5, 6], [7], [8, 9, 10], [11], [12, 13, 14, 15], [16], [17]]
    adapters: list[Adapters] = ["a", "b", "a", None, mix, "b", "a"]
    requests = [request(end, adapter) for end, adapter in zip(ends, adapters, strict=True)]
    late = [request([20, 21], "a"), request([22], mix), Request([5, 6, 7], "a", "shop", max_tokens=4, stop_ids=())]
    expected = [answers(engine, [Request(one.prompt_ids, one.adapter, max_tokens=one.max_tokens, stop_ids=())])[0]
                for one in (*requests, *late)]  # fmt: skip
    assert engine.prefixes is not None
    assert engine.prefixes.stats.wanted == 0
    tokens_read.clear()
    assert answers(engine, requests, late) == expected
    assert sum(tokens_read) < 4.6 * len(SYSTEM) + 150, "four times for four sets of adapters, not ten times"
    tokens_read.clear()
    assert answers(engine, requests, late) == expected
    assert sum(tokens_read) < 350
    stats = engine.prefixes.stats
    assert stats.blocks == 4 * 3
    assert 0.5 < stats.found / stats.wanted < 1


def test_another_adapter_another_scope_or_no_scope_shares_nothing(
    tiny_llama, tiny_tokenizer, make_card: MakeCard
) -> None:
    engine = engine_of(tiny_llama, tiny_tokenizer, make_card, MANY)
    assert engine.prefixes is not None

    def found(adapter: Adapters, scope: str | None) -> int:
        assert engine.prefixes is not None
        before = engine.prefixes.stats.found
        answers(engine, [request([5], adapter, scope)])
        return engine.prefixes.stats.found - before

    assert found("a", "shop") == 0
    assert found("a", "shop") == 3 * BLOCK
    for adapter, scope in (("b", "shop"), ("a", "law"), (None, "shop"), ({"a": 0.5, "b": 0.5}, "shop"), ("a", None)):
        assert found(adapter, scope) == 0, (adapter, scope)
    engine.load(make_card("a", 4, 9))  # another version under the same name
    assert found("a", "shop") == 0


def test_a_row_that_ends_while_it_reads_leaves_those_that_wait_for_it_to_read_themselves(
    tiny_llama, tiny_tokenizer, make_card: MakeCard
) -> None:
    engine = engine_of(tiny_llama, tiny_tokenizer, make_card, MANY)
    engine._prefill_tokens = 8
    expected = answers(engine, [request([6], "a", None)])[0]
    batch = engine.start([Request([7], max_tokens=60, stop_ids=())])
    rows = batch.add([request([5], "a"), request([6], "a"), request([8], "a")])
    batch.step()
    batch.cancel(rows[0])
    found: list[int] = []
    while batch.alive and len(found) < 5:
        found += [token for row, token, _ in batch.step() if row == rows[1]]
    assert found == expected
    batch.close()
    assert engine.free_slots == 4


def test_memory_pressure_forgets_all(tiny_llama, tiny_tokenizer, make_card: MakeCard) -> None:
    engine = engine_of(tiny_llama, tiny_tokenizer, make_card, MANY)
    answers(engine, [request([5], "a")])
    assert engine.prefixes is not None
    assert engine.prefixes.stats.bytes > 0
    engine.trim()
    assert engine.prefixes.stats.bytes == engine.prefixes.stats.blocks == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("xy"), st.lists(st.sampled_from([1, 2]), min_size=1, max_size=5), st.booleans()),
        max_size=30,
    ),
    st.integers(1, 6),
)
def test_what_is_found_is_what_was_kept_for_its_owner_and_never_more_bytes_than_allowed(
    steps: list[tuple[str, list[int], bool]], room: int
) -> None:
    """Each block's numbers are made of its owner and all tokens up to its end."""

    def numbers(owner: str, ids: list[int]) -> torch.Tensor:
        sums = torch.tensor(ids, dtype=torch.float64).cumsum(0) * (1 if owner == "x" else -1)
        return sums[: (len(ids) - 1) // BLOCK * BLOCK].view(1, 1, 1, -1, 1).expand(1, 2, 1, -1, 1)

    cache = PrefixCache(room * 2 * BLOCK * 8)
    for owner, blocks, keeps in steps:
        ids = [block for block in blocks for _ in range(BLOCK)] + [3]
        found = cache.find(owner, ids)
        if found:
            whole = numbers(owner, ids)
            assert torch.equal(torch.cat(found, 3), whole[:, :, :, : BLOCK * len(found)])
        if keeps:
            cache.keep(owner, ids, numbers(owner, ids))
            assert cache.held(owner, ids) == min(len(blocks), room) or len(blocks) > room
        assert cache.stats.bytes == cache.stats.blocks * 2 * BLOCK * 8 <= room * 2 * BLOCK * 8
