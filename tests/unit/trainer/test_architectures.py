"""Batches of many architectures: packed where that gives the model's own numbers, else padded, and the same either way."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from services.trainer.training.encoding import EncodedSample
from services.trainer.training.loop import collate
from services.trainer.training.packed_model import install

pytestmark = [pytest.mark.unit, pytest.mark.requirement("TP-1.1")]

COMMON = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PACKED: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "granite": {"logits_scaling": 0.5, "attention_multiplier": 0.5},
    "cohere": {"logit_scale": 2.0},
    "gpt_neox": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8},
}
PADDED: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention"]},  # a convolution would mix the rows
    "mamba": {},  # a state would run on into the next row
    "bloom": {"n_layer": 2, "n_head": 4},  # positions are in the attention mask
    "stablelm": {},  # attention is not told of the layout
}
# Two rows that begin alike, one longer than every window, one of a few tokens.
ROWS = [[*range(5, 16), 20, 21, 22], [*range(5, 16), 30], list(range(40, 60)), [60, 61, 62]]


def made(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**COMMON, **(PACKED | PADDED)[name], **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(4)  # as it is drawn, a model hardly looks at what it attends to
    return model


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_a_batch_has_the_numbers_and_gradients_of_its_rows_one_by_one(name: str) -> None:
    model = made(name)
    plain = model.forward
    batch = collate([EncodedSample(tuple(row), (-100, *row[1:])) for row in ROWS])
    why = install(model)
    assert bool(why) == (name in PADDED), why
    scored = model(**batch, fused_lm_head=True)
    expected = torch.zeros_like(scored.log_probs)
    for index, row in enumerate(ROWS):
        likely = plain(input_ids=torch.tensor([row])).logits[0, :-1].float().log_softmax(-1)
        expected[index, : len(row) - 1] = likely.gather(1, torch.tensor(row[1:])[:, None])[:, 0]
    torch.testing.assert_close(scored.log_probs, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.05, "a model to which all tokens are alike shows nothing"

    gradients = []
    for loss in (scored.log_probs.sum(), expected.sum()):
        model.zero_grad()
        loss.backward()
        gradients.append([None if each.grad is None else each.grad.clone() for each in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max() + 1e-6))


def test_finding_out_leaves_mode_and_random_numbers_as_they_were() -> None:
    for name in ("llama", "lfm2"):
        model = made(name).train()
        before = torch.get_rng_state()
        install(model)
        assert all(module.training for module in model.modules())
        assert torch.equal(torch.get_rng_state(), before)


def test_attention_dropout_is_that_of_the_model_while_it_trains() -> None:
    model = made("llama", attention_dropout=0.5)
    assert install(model) == ""
    batch = collate([EncodedSample(tuple(row), tuple(row)) for row in ROWS])
    first, again = (model(**batch, fused_lm_head=True).log_probs for _ in range(2))
    assert torch.equal(first, again)
    model.train()
    dropped, otherwise = (model(**batch, fused_lm_head=True).log_probs for _ in range(2))
    assert not torch.allclose(dropped, otherwise)
