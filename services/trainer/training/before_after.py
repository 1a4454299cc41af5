"""What base model and adapter each answer to a few prompts: the report's before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_core.base_model import end_tokens
from services.trainer.training.protocol import BeforeAfter

MOST_PROMPTS = 3
MOST_TOKENS = 48
LEAST_TOKENS = 16


@dataclass(frozen=True)
class ComparedPrompt:
    """A prompt as text for people and as token ids for the model, and the completion that the data has for it."""

    prompt: str
    wanted: str
    ids: tuple[int, ...]


def compare_answers(model: Any, tokenizer: Any, prompts: Sequence[ComparedPrompt]) -> tuple[BeforeAfter, ...]:
    """Greedy answers of base model and adapter to the first `MOST_PROMPTS`, each all prompts in one batch.

    An answer ends at an end token (the tokenizer's, or one of the model's generation settings) or after twice the
    longest wanted completion, within `LEAST_TOKENS` and `MOST_TOKENS`: a base model that never ends shows no more then.

    Args:
        model: the PeftModel, in evaluation mode.
        tokenizer: its tokenizer.
        prompts: prompts, by preference of the validation split.
    """
    prompts = [one for one in prompts if one.ids][:MOST_PROMPTS]
    if not prompts:
        return ()
    with model.disable_adapter():
        before = _answers(model, tokenizer, prompts)
    after = _answers(model, tokenizer, prompts)
    return tuple(
        BeforeAfter(prompt=one.prompt, wanted=one.wanted, before=first, after=then)
        for one, first, then in zip(prompts, before, after, strict=True)
    )


def _answers(model: Any, tokenizer: Any, prompts: Sequence[ComparedPrompt]) -> list[str]:
    ends = sorted(end_tokens(model.generation_config, tokenizer))
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    longest = max(len(one.ids) for one in prompts)
    wanted = max(len(tokenizer(one.wanted, add_special_tokens=False)["input_ids"]) for one in prompts)
    # Padding goes to the left: generation continues at the right edge of every row.
    ids = torch.full((len(prompts), longest), padding, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, one in enumerate(prompts):
        ids[row, longest - len(one.ids) :] = torch.tensor(one.ids)
        mask[row, longest - len(one.ids) :] = 1
    with torch.inference_mode():
        generated = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max(LEAST_TOKENS, min(MOST_TOKENS, 2 * wanted)),
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=ends,
            pad_token_id=padding,
        )
    return [_text(tokenizer, row, ends) for row in generated[:, longest:].tolist()]


def _text(tokenizer: Any, tokens: list[int], ends: list[int]) -> str:
    end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return str(tokenizer.decode(tokens[:end], skip_special_tokens=True)).strip()
