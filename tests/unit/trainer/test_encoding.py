"""Token ids and labels, with the real tokenizer and its chat template."""

from pathlib import Path
from typing import Any

import pytest

from services.trainer.training.encoding import IGNORED, encode, encode_all, prompt_ids

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model, local_files_only=True)


@pytest.mark.requirement("TP-1.1")
def test_loss_is_on_the_completion_and_its_end_alone(tokenizer: Any) -> None:
    sample = encode(tokenizer, "Who keeps the lamp?", "The keeper of the lamp.")
    trained = [label for label in sample.labels if label != IGNORED]
    assert tokenizer.decode(trained) == "The keeper of the lamp." + tokenizer.eos_token
    assert trained == list(sample.input_ids[-len(trained) :])
    assert set(sample.labels[: -len(trained)]) == {IGNORED}


def test_a_prompt_is_encoded_exactly_as_generation_sees_it(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "Who keeps the lamp?"}]
    seen = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    sample = encode(tokenizer, "Who keeps the lamp?", "\n\nNobody.")
    assert list(sample.input_ids[: len(seen)]) == seen == prompt_ids(tokenizer, "Who keeps the lamp?")
    assert sample.labels[len(seen) - 1] == IGNORED
    assert sample.labels[len(seen)] != IGNORED


def test_a_model_without_chat_template_is_trained_on_the_bare_texts(tokenizer: Any) -> None:
    class Bare:
        chat_template = None
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
            return tokenizer(text, add_special_tokens=add_special_tokens)

    sample = encode(Bare(), "one two", " three")  # type: ignore[arg-type]
    assert tokenizer.decode(sample.input_ids) == "one two three" + tokenizer.eos_token


def test_a_template_that_rewrites_the_prompt_once_it_is_answered_is_refused(tokenizer: Any) -> None:
    class Rewriting:
        chat_template = "…"
        eos_token_id = 2

        def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
            return "open" if add_generation_prompt else "other"

    with pytest.raises(ValueError, match="differently"):
        encode(Rewriting(), "p", "c")  # type: ignore[arg-type]


def test_samples_that_are_too_long_are_left_out_whole_and_counted(tokenizer: Any) -> None:
    kept = encode_all(tokenizer, [("short", "one"), ("long", "word " * 100)], max_length=60)
    assert (len(kept.samples), kept.too_long) == (1, 1)
    assert kept.longest > 100
    assert kept.samples[0] == encode(tokenizer, "short", "one")
