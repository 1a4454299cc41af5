"""Further forms of an adapter and its answers, on the tiny model: nothing here needs a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_core import LoRAFormat
from lora_core.interop import from_gguf, from_peft
from lora_core.profiles import quality_threshold
from services.trainer.datasets.records import prompt_messages
from services.trainer.training.encoding import EncodedSample, encode, prompt_ids
from tests.integration.trainer.conftest import pairs

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[EncodedSample]:
    return [encode(tokenizer, prompt_messages(pair["prompt"]), pair["completion"]) for pair in pairs("shop", 12)]


class Trained:
    """A PeftModel whose adapter changes every layer, its PEFT folder and its Arrow file."""

    def __init__(self, tiny_model: Path, folder: Path, **settings: Any) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(3)
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        targets = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
        config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets, **settings)
        self.model: Any = get_peft_model(base, config)
        for name, weights in self.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.5)
        self.model.eval()
        self.peft, self.artifact = folder / "peft", folder / "artifact.arrow"
        self.model.save_pretrained(self.peft)
        LoRAFormat.save(from_peft(self.peft), self.artifact)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tiny_model, tmp_path_factory.mktemp("trained"), use_rslora=True)


@pytest.mark.requirement("AS-2.3")
@pytest.mark.requirement("AS-2.2")
def test_every_form_is_measured_from_its_file_and_the_model_has_its_own_adapter_again(
    trained: Trained, rows: list[EncodedSample], tiny_model: Path, tmp_path: Path
) -> None:
    from services.trainer.training import exports

    before = exports.preferences(trained.model, rows)
    made = exports.make(
        ("gguf", "int8", "int4"),
        artifact=trained.artifact,
        peft=trained.peft,
        model=trained.model,
        validation_rows=rows,
        base_model=tiny_model,
        adapter_type="content-generator",
        work=tmp_path,
    )
    gguf, int8, int4 = made
    assert [one.kind for one in made] == ["gguf", "int8", "int4"]
    assert set(from_gguf(gguf.file, tiny_model).weights) == set(LoRAFormat.load(trained.artifact).weights)
    assert (gguf.same_token, gguf.quality_threshold, gguf.fit) == (1.0, None, True)
    assert gguf.validation_loss == pytest.approx(before.loss, rel=1e-4)
    assert (int8.quality_threshold, int4.quality_threshold) == (0.95, 0.85)
    # Random weights on a random model are the hardest case there is: 4 bits move many of its tokens, 8 bits few.
    assert int8.same_token is not None
    assert int4.same_token is not None
    assert int4.same_token < int8.same_token < 1.0
    assert int8.fit == (int8.same_token >= 0.95)
    assert int4.fit == (int4.same_token >= 0.85)
    assert int8.validation_loss != int4.validation_loss != before.loss
    assert int4.file.stat().st_size < int8.file.stat().st_size < trained.artifact.stat().st_size
    assert exports.preferences(trained.model, rows).tokens.equal(before.tokens)


@pytest.mark.requirement("AS-2.3")
def test_a_file_at_a_level_of_llama_cpp_is_held_to_the_threshold_of_that_level(
    trained: Trained, rows: list[EncodedSample], tiny_model: Path, tmp_path: Path
) -> None:
    from services.trainer.training import exports

    (made,) = exports.make(
        ("gguf-q8_0",),
        artifact=trained.artifact,
        peft=trained.peft,
        model=trained.model,
        validation_rows=rows,
        base_model=tiny_model,
        adapter_type="workflow-builder",
        work=tmp_path,
    )
    assert (made.kind, made.file.name, made.quality_threshold) == ("gguf-q8_0", "adapter-gguf-q8_0.gguf", 0.98)
    assert made.same_token is not None
    assert made.same_token < 1.0
    assert made.fit == (made.same_token >= 0.98)
    assert set(from_gguf(made.file, tiny_model).weights) == set(LoRAFormat.load(trained.artifact).weights)


@pytest.mark.requirement("AS-2.3")
def test_preferences_are_those_of_each_row_alone(trained: Trained, rows: list[EncodedSample]) -> None:
    import torch

    from services.trainer.training import exports
    from services.trainer.training.encoding import IGNORED

    together = exports.preferences(trained.model, rows)
    alone, losses = [], []
    for row in rows:
        with torch.inference_mode():
            logits = trained.model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        alone.append(logits.argmax(-1)[labels != IGNORED])
        losses.append(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
    assert together.tokens.equal(torch.cat(alone))
    assert together.loss == pytest.approx(float(sum(losses)) / len(together.tokens), rel=1e-4)


def test_a_large_validation_split_is_drawn_from_evenly() -> None:
    from services.trainer.training import exports

    rows = [EncodedSample((index,) * 100, (index,) * 100) for index in range(300)]
    chosen = exports.drawn(rows)
    assert [row.input_ids[0] for row in chosen] == list(range(0, 300, 4))
    assert exports.drawn(rows[:80]) == rows[:80]


def test_a_form_without_validation_rows_is_refused(trained: Trained, tiny_model: Path, tmp_path: Path) -> None:
    from services.trainer.training import exports

    with pytest.raises(ValueError, match="validation split"):
        exports.make(
            ("int8",),
            artifact=trained.artifact,
            peft=trained.peft,
            model=trained.model,
            validation_rows=[],
            base_model=tiny_model,
            adapter_type="",
            work=tmp_path,
        )


@pytest.mark.requirement("AS-7.1")
def test_a_type_without_a_profile_is_held_to_the_strictest_of_its_storage() -> None:
    assert quality_threshold("content-generator", "int8") == 0.95
    assert quality_threshold("", "int8") == quality_threshold("intent-classifier", "int8") == 0.98
    assert quality_threshold("poet", "int4") == 0.85
    assert quality_threshold("poet", "plain") == 1.0


@pytest.mark.requirement("TP-5.2")
def test_what_both_answer_is_what_each_answers_alone_in_any_batch(trained: Trained, tokenizer: Any) -> None:
    import torch

    from services.trainer.training import before_after

    prompts = ["Hi", "Which word opens gate 7, at the far end of the long northern wall?", "Why?", "a fourth"]
    questions = [
        before_after.ComparedPrompt(one, "a long answer " * 20, tuple(prompt_ids(tokenizer, one))) for one in prompts
    ]
    compared = before_after.compare_answers(trained.model, tokenizer, questions)
    assert [one.prompt for one in compared] == prompts[:3]
    assert all(one.before != one.after for one in compared)
    with torch.inference_mode():
        for one, answer in zip(questions, compared, strict=False):
            ids = torch.tensor([one.ids])
            alone = trained.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False
            )
            assert answer.after == tokenizer.decode(alone[0, len(one.ids) :], skip_special_tokens=True).strip()


def test_an_answer_ends_at_its_end_token(trained: Trained, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.trainer.training import before_after

    questions = [before_after.ComparedPrompt("Hi", "", tuple(prompt_ids(tokenizer, "Hi")))]
    (whole,) = before_after.compare_answers(trained.model, tokenizer, questions)
    third = tokenizer(whole.after, add_special_tokens=False)["input_ids"][2]
    monkeypatch.setattr(trained.model.generation_config, "eos_token_id", [third])
    (cut,) = before_after.compare_answers(trained.model, tokenizer, questions)
    assert cut.after != whole.after
    assert whole.after.startswith(cut.after)
