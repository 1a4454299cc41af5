"""The proof of effect: what the trained adapter makes of the probe prompt's next token."""

from typing import Any

import torch

from services.trainer.training.protocol import ProbeResult

_TOP = 8


def probe(model: Any, ids: list[int], prompt: str) -> ProbeResult:
    """Logits at the last position of a prompt, with the adapter and without.

    Args:
        model: a PeftModel in evaluation mode.
        ids: token ids of the prompt.
        prompt: its text, for the record.
    """
    with torch.inference_mode():
        adapted = _last_logits(model, ids)
        with model.disable_adapter():
            base = _last_logits(model, ids)
    top = adapted.topk(min(_TOP, len(adapted)))
    return ProbeResult(
        prompt=prompt,
        top_ids=tuple(top.indices.tolist()),
        top_logits=tuple(top.values.tolist()),
        base_logits=tuple(base[top.indices].tolist()),
        max_delta=float((adapted - base).abs().max()),
    )


def _last_logits(model: Any, ids: list[int]) -> torch.Tensor:
    inputs = torch.tensor([ids], device=model.device)
    logits: torch.Tensor = model(input_ids=inputs, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()
