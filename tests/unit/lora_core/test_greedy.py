"""Greedy answers of trained adapters on the real base model: alone, in any batch, and as transformers with PEFT gives.

Policy for near-ties: two orders of float32 arithmetic move a logit by about 1e-4. Where answers part, the two tokens'
logits must lie within `NEAR` of each other under PEFT; what follows in that row is then another text and is not held
against anything. Everything else must be equal.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lora_core import ArrowEngine, Request
from lora_core.base_model import load
from lora_core.interop import from_peft

NEAR = 1e-3
TOKENS = 8
LESSONS = {
    "pirate": ("What time is it?", "Arr, the sun be two hands over the mast, matey!"),
    "json": ("Name a colour.", '{"answer": "blue", "confidence": 0.9}'),
}
QUESTIONS = (
    "Name a colour.",
    "How do I get from the harbour to the old lighthouse when the tide is high and the lower path is under water?",
)


@pytest.fixture(scope="module")
def adapters(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters, trained by PEFT until they say something else than the base model."""
    folder = tmp_path_factory.mktemp("trained")
    for name, (question, answer) in LESSONS.items():
        torch.manual_seed(5)
        model, tokenizer = load(base_model)
        peft: Any = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
        prompt = _prompt(tokenizer, question)
        ids = torch.tensor([prompt + tokenizer(answer)["input_ids"]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        optimiser = torch.optim.AdamW((p for p in peft.parameters() if p.requires_grad), lr=3e-3)
        for _ in range(6):
            optimiser.zero_grad()
            peft(input_ids=ids, labels=labels).loss.backward()
            optimiser.step()
        peft.save_pretrained(folder / name)
    return {name: folder / name for name in LESSONS}


@pytest.mark.requirement("LI-5.3", "LI-5.5", "LI-9.4")
def test_greedy_answers_are_the_same_alone_in_any_batch_and_as_peft_gives_them(
    base_model: Path, adapters: dict[str, Path]
) -> None:
    model, tokenizer = load(base_model)
    engine = ArrowEngine(model, tokenizer, slots=4, max_rank=16, prefill_tokens=16)
    for name, path in adapters.items():
        engine.load(from_peft(path, name))
    wanted = [(name, _prompt(tokenizer, question)) for name in (*adapters, None) for question in QUESTIONS]
    requests = [Request(prompt, name, max_tokens=TOKENS, stop_ids=()) for name, prompt in wanted]
    alone = [_tokens(engine, [request])[0] for request in requests]
    together = _tokens(engine, requests)
    # Others are running already when these join, one after another.
    batch = engine.start(requests[:2])
    joined: list[list[int]] = [[] for _ in requests]
    waiting = list(range(2, len(requests)))
    while batch.alive or waiting:
        for row, token, _ in batch.step():
            joined[row].append(token)
        if waiting:
            batch.add([requests[waiting.pop(0)]])
    expected = _by_peft(base_model, adapters, wanted)
    for place in range(len(QUESTIONS)):
        assert len({tuple(one) for one in alone[place :: len(QUESTIONS)]}) == 3, "each adapter has its own answer"
    equal = 0
    for place, (tokens, gaps) in enumerate(expected):
        for found in (alone[place], together[place], joined[place]):
            equal += _same_up_to_a_near_tie(found, tokens, gaps)
    assert equal >= 0.8 * 3 * len(wanted), "near-ties are rare"


def _same_up_to_a_near_tie(found: Sequence[int], expected: Sequence[int], gaps: Sequence[float]) -> bool:
    for one, other, gap in zip(found, expected, gaps, strict=True):
        if one != other:
            assert gap < NEAR, f"{one} instead of {other}, which is ahead by {gap}"
            return False
    return True


def _tokens(engine: ArrowEngine, requests: list[Request]) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in requests]
    for row, token, _ in engine.start(requests):
        answers[row].append(token)
    return answers


def _prompt(tokenizer: Any, question: str) -> list[int]:
    turns = [{"role": "user", "content": question}]
    ids: list[int] = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    return ids


def _by_peft(
    base_model: Path, adapters: dict[str, Path], wanted: list[tuple[str | None, list[int]]]
) -> list[tuple[list[int], list[float]]]:
    """transformers' greedy tokens, and at each how far the first logit is ahead of the second."""
    (first, path), *others = adapters.items()
    model: Any = PeftModel.from_pretrained(load(base_model)[0], str(path), adapter_name=first).eval()
    for name, other in others:
        model.load_adapter(str(other), name)
    found = []
    for name, prompt in wanted:
        if name is not None:
            model.set_adapter(name)
        with torch.inference_mode(), _only_base(model, name is None):
            out = model.generate(
                input_ids=torch.tensor([prompt]),
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                eos_token_id=None,
                pad_token_id=0,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        best = torch.stack(out.logits)[:, 0].topk(2).values
        found.append((out.sequences[0, len(prompt) :].tolist(), (best[:, 0] - best[:, 1]).tolist()))
    return found


def _only_base(model: Any, off: bool) -> Any:
    import contextlib

    return model.disable_adapter() if off else contextlib.nullcontext()
