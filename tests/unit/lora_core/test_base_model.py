"""On the real base model: SmolLM2-135M-Instruct."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lora_core import ArrowEngine, LoRAFormat, Request, check_card
from lora_core.base_model import linear_shapes, load
from lora_core.interop import from_peft

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.mark.requirement("LI-5.4", "LI-5.6", "LI-9.4", "LI-9.5")
def test_a_peft_adapter_answers_on_the_base_model_as_it_does_in_peft_beside_a_row_without_it(
    base_model: Path, tmp_path: Path
) -> None:
    model, tokenizer = load(base_model)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=True)["input_ids"]
    torch.manual_seed(1)
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")).eval()
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.01)
        ids = torch.tensor([prompt])
        expected = peft(ids).logits[0, -1]
        expected_tokens = peft.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
        base_tokens = model.generate(ids, max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
    peft.save_pretrained(tmp_path / "peft")
    del peft
    LoRAFormat.save(from_peft(tmp_path / "peft", "made"), tmp_path / "made.arrow")
    card = LoRAFormat.load(tmp_path / "made.arrow")
    shapes = linear_shapes(base_model)
    assert len(check_card(card, shapes).modules) == len(shapes) == 210

    engine = ArrowEngine(model, tokenizer, slots=2, max_rank=16)
    engine.load(card)
    probe = engine.probe(prompt, "made")
    torch.testing.assert_close(torch.tensor(probe.logits), expected[list(probe.token_ids)], atol=1e-4, rtol=0)
    requests = [Request(prompt, "made", max_tokens=8, stop_ids=()), Request(prompt, max_tokens=8)]
    answers: list[list[int]] = [[], []]
    for row, token, _ in engine.start(requests):
        answers[row].append(token)
    assert answers[0][: len(expected_tokens)] == expected_tokens
    assert "Paris" in tokenizer.decode(answers[1])
    assert answers[1] == [token for token in base_tokens if token != tokenizer.eos_token_id]
    assert answers[0] != answers[1]
