"""Rows in one batch, of many architectures: each is answered as if it were alone."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lora_core import ArrowEngine
from lora_core.sampling import Request
from tests.architectures import ARCHITECTURES, made

pytestmark = pytest.mark.unit

PROMPTS = [[*range(5, 12)], [30, 31, 32], [*range(40, 60)], [*range(60, 71)]]
TOKENS = 8


def alone(model: torch.nn.Module, prompt: list[int]) -> list[tuple[int, float]]:
    """(token, log-probability) of a greedy answer, every token from the whole text before it."""
    ids, generated = list(prompt), []
    for _ in range(TOKENS):
        with torch.no_grad():
            likely = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float().log_softmax(-1)
        ids.append(int(likely.argmax()))
        generated.append((ids[-1], float(likely[ids[-1]])))
    return generated


# A model of states alone (Mamba) fails in transformers when a prompt is read in parts, as long ones are here.
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mamba"])
def test_rows_that_begin_together_or_join_later_are_answered_as_if_alone(
    name: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = made(name).requires_grad_(False)
    wanted = [alone(model, prompt) for prompt in PROMPTS]
    engine = ArrowEngine(model, tiny_tokenizer, slots=1, max_rank=4, prefill_tokens=8)
    requests = [Request(prompt, max_tokens=TOKENS, stop_ids=()) for prompt in PROMPTS]
    for first in (len(requests), 1):
        batch, later = engine.start(requests[:first]), requests[first:]
        generated: list[list[tuple[int, float]]] = [[] for _ in requests]
        while batch.alive or later:
            for row, token, likelihood in batch.step():
                generated[row].append((token, likelihood))
            if later:
                batch.add([later.pop(0)])
        for ours, theirs in zip(generated, wanted, strict=True):
            assert [token for token, _ in ours] == [token for token, _ in theirs]
            assert [one for _, one in ours] == pytest.approx([one for _, one in theirs], abs=1e-3)
