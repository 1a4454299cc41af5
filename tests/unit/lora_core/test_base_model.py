"""On the real base model: SmolLM2-135M-Instruct."""

import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lora_core import ArrowEngine, LoRACard, LoRAFormat, LoRAManager, LoRAWeights, Request, check_card
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


@pytest.fixture(scope="module")
def full_card(base_model: Path) -> LoRACard:
    """Rank 16 on all seven projections of every layer: 420 matrices."""
    random = np.random.default_rng(0)
    weights = {
        module: LoRAWeights(
            (random.standard_normal((16, inputs), np.float32) * 0.02).astype(np.float16),
            (random.standard_normal((outputs, 16), np.float32) * 0.02).astype(np.float16),
        )
        for module, (outputs, inputs) in linear_shapes(base_model).items()
    }
    return LoRACard("full", 16, 32.0, ("all-linear",), weights)


def best_of(rounds: int, action: Callable[[], object], undo: Callable[[], object] = lambda: None) -> float:
    """Seconds of the fastest round: what the action takes when nothing else has the machine."""
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        took.append(time.perf_counter() - started)
        undo()
    return min(took)


@pytest.mark.requirement("LI-6.1", "LI-6.2", "LI-6.6")
def test_loading_applying_and_removing_stay_far_below_what_was_asked(
    base_model: Path, full_card: LoRACard, tmp_path: Path
) -> None:
    """The floors of the requirements; `python -m benchmarks.lora_core` measures how far below."""
    model, tokenizer = load(base_model)
    path = tmp_path / "full.arrow"
    LoRAFormat.save(full_card, path)
    assert best_of(5, lambda: LoRAFormat.load(path)) < 0.1
    card = LoRAFormat.load(path)
    engine = ArrowEngine(model, tokenizer, slots=2, max_rank=16)
    assert best_of(5, lambda: engine.load(card), lambda: engine.unload("full")) < 0.5
    assert best_of(5, lambda: engine.unload("full"), lambda: engine.load(card)) < 0.1
    engine.unload("full")
    manager = LoRAManager(model)
    assert best_of(3, lambda: manager.apply(card), lambda: manager.remove("full")) < 0.5
    manager.apply(card)
    assert best_of(3, lambda: manager.remove("full"), lambda: manager.apply(card)) < 0.1


@pytest.mark.requirement("LI-6.3", "LI-6.5")
def test_an_adapter_adds_under_a_tenth_of_the_arithmetic_in_one_product_for_each_input_and_each_output(
    base_model: Path, full_card: LoRACard
) -> None:
    """What latency follows from, counted where a clock would only be guessed at on a shared machine."""
    model, tokenizer = load(base_model)
    engine = ArrowEngine(model, tokenizer, slots=8, max_rank=64)
    report = engine.load(full_card)
    assert report.bytes < 50e6
    ids = torch.tensor([list(range(100, 164))])

    def operations(adapter: str | None) -> int:
        with engine.rows([adapter]), FlopCounterMode(display=False) as counter:
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
        return counter.get_total_flops()

    assert 1 < operations("full") / operations(None) < 1.1
    for number in range(1, 8):
        engine.load(full_card, f"full-{number}")
    for names in (["full"], ["full"] * 8, ["full", *(f"full-{number}" for number in range(1, 8))]):
        with engine.rows(names), profile(activities=[ProfilerActivity.CPU]) as profiled:
            model(input_ids=ids[:, :1].expand(len(names), -1), use_cache=False)
        calls = {event.key: event.count for event in profiled.key_averages()}
        # 30 layers: q, k and v share a product, gate and up share one, o and down have theirs; seven outputs.
        assert (calls["aten::bmm"], calls["aten::baddbmm_"]) == (30 * 4, 30 * 7)
