"""A direct pass gives the numbers of the model's own forward, whatever the rows, their adapters and their padding are."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DynamicCache,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from lora_core import ArrowEngine, LoRACard, LoRAWeights, Request
from lora_core.direct.decoder import DirectDecoder
from lora_core.direct.products import FloatProduct, PackedProduct
from lora_core.forward_pass import Inputs
from lora_core.int8 import to_int8
from lora_core.sampling import Adapters
from lora_core.slots.fused_additions import of_prompts, of_step
from lora_core.slots.row_plan import RowPlan
from lora_core.slots.slot_bank import SlotBank

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": None,
}
SCALED = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
FAMILY: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True, head_dim=24)),
    "llama, biases, scaled": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, rope_parameters=SCALED)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=24)),
    "granite": lambda: GraniteForCausalLM(
        GraniteConfig(
            **SIZES, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.1, logits_scaling=2.0
        )
    ),
    "smollm3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**SIZES, no_rope_layers=[1, 0, 1])),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
}
OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)),
    "eager attention": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")),
    "qwen3 with a window": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, head_dim=24, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    ),
    "smollm3 with a window": lambda: SmolLM3ForCausalLM(
        SmolLM3Config(**SIZES, use_sliding_window=True, sliding_window=8, layer_types=["sliding_attention"] * 3)
    ),
    "another activation": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu")),
    "angles by length": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    ),
}
PROMPTS = [[5, 17, 42, 8], [9], [11, 12, 13, 14, 15, 16, 17, 18, 19], [60, 61]]
SETS: Sequence[Adapters] = ("a", "dora", {"a": 0.7, "dora": -0.4, "wide": 1.0}, None)


def made(name: str, of: dict[str, Callable[[], PreTrainedModel]] = FAMILY) -> PreTrainedModel:
    torch.manual_seed(3)
    model = of[name]().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.12)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def card(model: PreTrainedModel, name: str, rank: int, *, vectors: bool = False, only: str = "_proj") -> LoRACard:
    random = np.random.default_rng(rank)
    weights = {}
    for module, layer in model.named_modules():
        if module.endswith(only) and isinstance(layer, torch.nn.Linear | torch.nn.Embedding):
            outputs, inputs = layer.weight.shape if isinstance(layer, torch.nn.Linear) else layer.weight.shape[::-1]
            a, b = (
                random.standard_normal(shape, dtype=np.float32) * 0.2 for shape in ((rank, inputs), (outputs, rank))
            )
            magnitude = np.linalg.norm(layer.weight.numpy(), axis=1) * 1.1 if vectors else None
            weights[module] = LoRAWeights(a, b, magnitude=magnitude)
    return LoRACard(name, rank, 2.0 * rank, (only,), weights)


def engines(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[ArrowEngine, ArrowEngine]:
    """One that computes directly, one that never does."""
    direct = ArrowEngine(model, tokenizer, slots=6, max_rank=8)
    theirs = ArrowEngine(copy.deepcopy(model), tokenizer, slots=6, max_rank=8)
    theirs._direct = None
    for engine in (direct, theirs):
        for own in (card(model, "a", 4), card(model, "wide", 8), card(model, "dora", 4, vectors=True)):
            engine.load(own)
        engine.load(card(model, "part", 4, only="k_proj"))
    return direct, theirs


def stepped(engine: ArrowEngine, requests: list[Request], late: list[Request]) -> list[tuple[int, int, float]]:
    batch = engine.start(requests)
    found = []
    for step in range(40):
        if step == 2:
            batch.add(late)
        if step == 5:
            batch.cancel(0)
        found += batch.step() if batch.alive else []
    return found


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[RowPlan]:
    """The plans of passes that were computed directly."""
    seen: list[RowPlan] = []
    read = DirectDecoder.read

    def counted(self: DirectDecoder, plan: RowPlan, inputs: Inputs, cache: DynamicCache) -> torch.Tensor | None:
        seen.append(plan)
        return read(self, plan, inputs, cache)

    monkeypatch.setattr(DirectDecoder, "read", counted)
    return seen


@pytest.mark.requirement("LI-5.3", "LI-5.5")
@pytest.mark.parametrize("prefill", [3, 256])
@pytest.mark.parametrize("name", FAMILY)
def test_mixed_rows_that_join_and_leave_answer_as_through_transformers(
    tiny_tokenizer: PreTrainedTokenizerBase, count: list[RowPlan], name: str, prefill: int
) -> None:
    direct, theirs = engines(made(name), tiny_tokenizer)
    requests = [Request(p, a, max_tokens=9, stop_ids=()) for p, a in zip(PROMPTS, SETS, strict=True)]
    late = [Request(list(range(2, 30)), a, max_tokens=6, stop_ids=()) for a in ("part", "part", None, "wide")]
    found = []
    for engine in (direct, theirs):
        engine._prefill_tokens = prefill
        found.append(stepped(engine, requests, late))
    assert [one[:2] for one in found[0]] == [one[:2] for one in found[1]]
    assert [one[2] for one in found[0]] == pytest.approx([one[2] for one in found[1]], abs=2e-4)
    assert len(count) >= 9


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("rows", [1, 2, 3, 12, 16])
@pytest.mark.parametrize("packed", [True, False])
def test_logits_are_those_of_the_models_own_forward_for_any_number_of_rows(name: str, rows: int, packed: bool) -> None:
    model = made(name)
    ids = torch.randint(2, 96, (rows, 17), generator=torch.Generator().manual_seed(rows))
    own = copy.deepcopy(model)
    bank = SlotBank(model, 2, 4)
    decoder, plan = DirectDecoder.of(model, bank, packed), bank.plan([()] * rows)
    assert decoder is not None
    from lora_core.kv_cache import new_cache

    cache = new_cache(model.config)
    with torch.inference_mode():
        for first, last in ((0, 9), (9, 14), (14, 15), (15, 16), (16, 17)):
            found = decoder.read(plan, Inputs(ids[:, first:last], (0,) * rows, first, last=True), cache)
            expected = own(input_ids=ids[:, :last], use_cache=False).logits[:, -1]
            assert found is not None
            torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)


def test_float32_layers_are_packed_unless_they_must_not_be_there_twice() -> None:
    for packed, kind in ((True, PackedProduct), (False, FloatProduct)):
        decoder = DirectDecoder.of(made("llama"), SlotBank(made("llama"), 1, 4), packed)
        assert decoder is not None
        assert {type(one) for layer in decoder._model.layers for one in layer.products} == {kind}
        assert type(decoder._model.head) is kind


def test_weights_that_are_changed_in_place_are_those_that_answer(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    model = made("llama")
    engine = ArrowEngine(model, tiny_tokenizer, slots=1, max_rank=4)

    def answer() -> list[int]:
        return [token for _, token, _ in engine.start([Request([5, 6], max_tokens=8, stop_ids=())])]

    before = answer()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-3)
        model.model.layers[0].mlp.down_proj.weight.neg_()
    assert answer() != before
    assert (
        answer()
        == model.generate(torch.tensor([[5, 6]]), max_new_tokens=8, do_sample=False, eos_token_id=None)[0, 2:].tolist()
    )


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_a_direct_pass_would_get_wrong_keep_their_own_forward(
    tiny_tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    engine = ArrowEngine(made(name, OTHERS), tiny_tokenizer, slots=1, max_rank=4)
    assert engine._direct is None
    assert len([*engine.start([Request([5, 6], max_tokens=3, stop_ids=())])]) == 3


def test_adapters_of_embeddings_and_heads_merged_ones_and_hooks_go_through_transformers(
    tiny_tokenizer: PreTrainedTokenizerBase, count: list[RowPlan]
) -> None:
    model = made("qwen2")
    engine = ArrowEngine(model, tiny_tokenizer, slots=4, max_rank=8)
    engine.load(card(model, "head", 4, only="lm_head"))
    engine.load(card(model, "tokens", 4, only="embed_tokens"))
    engine.load(card(model, "plain", 4))

    def answers(adapter: str | None) -> list[tuple[int, int, float]]:
        return [*engine.start([Request([5, 6, 7], adapter, max_tokens=4, stop_ids=())])]

    plain = answers("plain")
    assert count
    count.clear()
    assert answers("head") != answers("tokens")
    engine.merge("plain")
    merged = answers("plain")
    assert [token for _, token, _ in merged] == [token for _, token, _ in plain]
    engine.unmerge()
    hook = model.model.layers[1].register_forward_hook(lambda *_: None)
    answers(None)
    hook.remove()
    assert not count
    answers(None)
    assert count


def test_weights_are_there_once(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    model = made("llama")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    ArrowEngine(model, tiny_tokenizer, slots=1, max_rank=4)
    storages = {parameter.untyped_storage().data_ptr(): parameter.untyped_storage() for parameter in model.parameters()}
    assert sum(storage.nbytes() for storage in storages.values()) == sum(p.nbytes for p in model.parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_8_bit_weights_are_computed_directly_with_the_numbers_of_transformers(
    tiny_tokenizer: PreTrainedTokenizerBase, count: list[RowPlan]
) -> None:
    model = made("qwen2")
    to_int8(model)
    direct = ArrowEngine(model, tiny_tokenizer, slots=4, max_rank=8)
    for name, rank in (("a", 4), ("wide", 8)):
        direct.load(card(made("qwen2"), name, rank))
    requests = [
        Request(p, a, max_tokens=8, stop_ids=()) for p, a in zip(PROMPTS, ("a", None, "wide", "a"), strict=True)
    ]
    found = sorted(direct.start(requests))
    assert count
    direct._direct = None
    expected = sorted(direct.start(requests))
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in expected], abs=2e-4)


@pytest.mark.requirement("LI-3.4", "LI-8.1")
@pytest.mark.parametrize("unit", [1, 1 << 20])
def test_one_token_of_each_row_gets_what_a_prompt_of_one_token_would(unit: int) -> None:
    """Sets, DoRA, biases, parts of the layers and the base model, in slots with gaps and another number of rows each."""
    model = made("llama")
    bank = SlotBank(model, 7, 8)
    bank._unit = unit
    for own in (
        card(model, "a", 4),
        card(model, "dora", 4, vectors=True),
        card(model, "gap", 4),
        card(model, "part", 4, only="k_proj"),
        card(model, "wide", 8),
    ):
        bank.put(own)
    bank.drop(2)
    decoder = DirectDecoder.of(model, bank, packed=False)
    assert decoder is not None
    rows = [[(0, 1.0)], [], [(1, 1.0)], [(0, 0.5), (1, 2.0), (4, -1.0)], [(3, 1.0)], [(0, 1.0)], [(4, 1.0), (0, 0.1)]]
    random = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for choices in (
            rows,
            rows[3:4],
            rows[:1] * 3,
            rows[4:5],
            rows[:2],
            [[(1, 1.0)]] * 2,
            [[(0, 1.0)], [(1, 1.0)]],
            [[]],
        ):
            for group in decoder._groups:
                assert group is not None
                x = torch.randn(len(choices), 1, group.in_features, generator=random)
                outs = sum(member.out_features for member in group.members)
                base = torch.randn(len(choices), 1, outs, generator=random)
                expected, found = base.clone(), base.clone()
                plan = bank.plan(choices)
                for own, output in ((of_prompts(group, plan), expected), (of_step(group, plan), found)):
                    for addition in own[1:2]:
                        addition(x, output)
                torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
