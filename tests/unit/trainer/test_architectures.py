"""Batches of many architectures: packed where that gives the model's own numbers, else padded, and the same either way."""

import pytest
import torch

from services.trainer.training.encoding import EncodedSample
from services.trainer.training.objectives.objective_trainer import collate
from services.trainer.training.packing.model import install
from tests.architectures import ARCHITECTURES, made

pytestmark = [pytest.mark.unit, pytest.mark.requirement("TP-1.1")]

PADDED = {
    "lfm2": "a convolution would mix the rows",
    "qwen3_next": "a state would run on into the next row",
    "mamba": "likewise",
    "bloom": "its mask has the positions",
    "falcon": "likewise",
    "stablelm": "its attention is not told of the layout",
    "gpt_oss": "its attention has sinks",
}
# Two rows that begin alike, one longer than every window, one of a few tokens.
ROWS = [[*range(5, 16), 20, 21, 22], [*range(5, 16), 30], list(range(40, 60)), [60, 61, 62]]


@pytest.mark.parametrize("name", ARCHITECTURES)
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
