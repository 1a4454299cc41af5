"""Layers whose input is not [rows, tokens, in]: each row of a batch still gets its own adapter, or the layer is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lora_core import ArrowEngine, LoRACard, LoRAManager, LoRAWeights
from lora_core.errors import UnsupportedAdapter
from lora_core.graphs.sites import servable
from lora_core.layers import dimensions, is_adaptable
from lora_core.sampling import Request
from tests.tiny_configs import tiny_config

pytestmark = pytest.mark.unit

TOKENS = 6
PROMPTS = [[*range(5, 12)], [30, 31, 32], [*range(40, 60)], [*range(60, 71)]]


def made(model_type: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type)).eval().requires_grad_(False)
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.mul_(3)
    return model


def card_of(model: PreTrainedModel, name: str, seed: int, *endings: str) -> LoRACard:
    """Random matrices of rank 2 for the layers whose names end so."""
    numbers = np.random.default_rng(seed)
    shapes = {
        module: dimensions(layer)
        for module, layer in model.named_modules()
        if is_adaptable(layer) and module.endswith(endings)
    }
    assert shapes
    weights = {
        module: LoRAWeights(
            numbers.normal(0, 0.3, (2, inputs)).astype(np.float32),
            numbers.normal(0, 0.3, (outputs, 2)).astype(np.float32),
        )
        for module, (outputs, inputs) in shapes.items()
    }
    return LoRACard(name, 2, 2.0, endings, weights)


def alone(model: PreTrainedModel, prompt: Sequence[int], card: LoRACard | None) -> list[int]:
    """A greedy answer with the layers wrapped, every token from the whole text before it."""
    manager = LoRAManager(model)
    if card is not None:
        manager.apply(card)
    ids = list(prompt)
    for _ in range(TOKENS):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    if card is not None:
        manager.remove(card.name)
    return ids[len(prompt) :]


@pytest.mark.requirement("LI-6.5")
@pytest.mark.parametrize(
    ("model_type", "endings"),
    [
        ("opt", ("fc1", "fc2", "q_proj")),
        ("qwen2_moe", ("shared_expert.up_proj", "shared_expert.down_proj", "shared_expert_gate")),
        ("qwen3_5_moe_text", ("shared_expert.gate_proj", "shared_expert_gate", "in_proj_a")),
        ("deepseek_v3", ("kv_b_proj", "o_proj")),
        ("minicpm3", ("kv_b_proj", "embed_tokens")),
        ("zaya", ("v_proj_delayed",)),
    ],
)
def test_rows_that_are_read_and_answered_together_are_answered_as_if_alone(
    model_type: str, endings: tuple[str, ...], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = made(model_type)
    one, two = card_of(model, "one", 1, *endings), card_of(model, "two", 2, *endings)
    chosen = [one, None, two, one]
    wanted = [alone(model, prompt, card) for prompt, card in zip(PROMPTS, chosen, strict=True)]
    assert wanted != [alone(model, prompt, None) for prompt in PROMPTS]
    engine = ArrowEngine(model, tiny_tokenizer, slots=2, max_rank=4, prefill_tokens=8)
    engine.load(one)
    engine.load(two)
    batch = engine.start(
        [
            Request(prompt, card and card.name, max_tokens=TOKENS, stop_ids=())
            for prompt, card in zip(PROMPTS, chosen, strict=True)
        ]
    )
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    for row, token, _ in batch:
        tokens[row].append(token)
    assert [batch.fault(row) for row in range(len(PROMPTS))] == [None] * len(PROMPTS)
    assert tokens == wanted


def test_a_batch_of_another_size_than_its_plan_is_refused_where_tokens_are_one_list(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = made("opt")
    engine = ArrowEngine(model, tiny_tokenizer, slots=2, max_rank=4)
    engine.load(card_of(model, "one", 1, "fc1"))
    with engine.rows(["one", None]), pytest.raises(RuntimeError, match="under a plan for 2"):
        model(input_ids=torch.tensor([[5, 6, 7]]))


@pytest.mark.parametrize(
    ("model_type", "ending"), [("xlnet", "ff.layer_1"), ("gpt2", "wpe"), ("openai-gpt", "positions_embed")]
)
def test_a_layer_that_has_no_rows_of_its_own_is_refused_by_name(
    model_type: str, ending: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = made(model_type)
    engine = ArrowEngine(model, tiny_tokenizer, slots=2, max_rank=4)
    card = card_of(model, "one", 1, ending)
    with pytest.raises(UnsupportedAdapter, match=f"{ending}'.*does not have the rows of the batch"):
        engine.load(card)
    assert engine.free_slots == 2


def test_routed_experts_that_are_modules_of_their_own_are_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("opt")
    layer = model.model.decoder.layers[0]
    layer.experts = torch.nn.ModuleList([torch.nn.Linear(64, 64)])
    engine = ArrowEngine(model, tiny_tokenizer, slots=2, max_rank=4)
    with pytest.raises(UnsupportedAdapter, match="routed expert"):
        engine.load(card_of(model, "one", 1, "experts.0"))


@pytest.mark.parametrize("model_type", ["mamba", "falcon_mamba", "jamba"])
def test_layers_whose_weight_and_bias_a_model_uses_itself_can_be_wrapped(model_type: str) -> None:
    model = made(model_type)
    ids = torch.tensor([PROMPTS[0]])
    plain = model(input_ids=ids, use_cache=False).logits
    manager = LoRAManager(model)
    manager.apply(card_of(model, "own", 1, "dt_proj"))
    # PEFT gives the base model's weight there too: an adapter on this layer alone changes nothing.
    torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, plain, rtol=0, atol=0)
    manager.apply(card_of(model, "more", 1, "dt_proj", "in_proj"))
    assert not torch.allclose(model(input_ids=ids, use_cache=False).logits, plain)


def test_an_embedding_that_multiplies_its_rows_is_served_wrapped_and_merged_alike(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = made("gemma2")
    ids = torch.tensor([PROMPTS[0]])
    card = card_of(model, "one", 1, "embed_tokens")
    manager = LoRAManager(model)
    manager.apply(card)
    wanted = model(input_ids=ids).logits
    manager.remove("one")
    assert not torch.allclose(wanted, model(input_ids=ids).logits, atol=1e-2)
    engine = ArrowEngine(model, tiny_tokenizer, slots=1, max_rank=4)
    engine.load(card)
    for merged in (False, True):
        if merged:
            engine.merge("one")
        with engine.rows(["one"]):
            torch.testing.assert_close(model(input_ids=ids).logits, wanted, atol=1e-4, rtol=1e-4)


def test_graphs_serve_only_layers_that_read_one_vector_of_each_token(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    groups = ArrowEngine(made("prophetnet"), tiny_tokenizer, slots=1, max_rank=4)._bank.groups
    assert {group.layout.per_token for group in groups if servable(group)} == {1}
    assert any(group.layout.per_token != 1 for group in groups)
