"""Token ids and labels, with the real tokenizer and its chat template."""

from pathlib import Path
from typing import Any

import pytest

from services.trainer.data.records import Kind, Message, Record, asked
from services.trainer.training.encoding import IGNORED, encode, encode_all, prompt_ids

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model, local_files_only=True)


@pytest.mark.requirement("TP-1.1")
def test_loss_is_on_the_completion_and_its_end_alone(tokenizer: Any) -> None:
    sample = encode(tokenizer, asked("Who keeps the lamp?"), "The keeper of the lamp.")
    trained = [label for label in sample.labels if label != IGNORED]
    assert tokenizer.decode(trained) == "The keeper of the lamp." + tokenizer.eos_token
    assert trained == list(sample.input_ids[-len(trained) :])
    assert set(sample.labels[: -len(trained)]) == {IGNORED}


def test_a_prompt_is_encoded_exactly_as_generation_sees_it(tokenizer: Any) -> None:
    talk = [{"role": "user", "content": "Who keeps the lamp?"}]
    seen = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    sample = encode(tokenizer, asked("Who keeps the lamp?"), "\n\nNobody.")
    assert list(sample.input_ids[: len(seen)]) == seen == prompt_ids(tokenizer, "Who keeps the lamp?")
    assert sample.labels[len(seen) - 1] == IGNORED
    assert sample.labels[len(seen)] != IGNORED


def test_a_model_without_chat_template_is_trained_on_the_bare_texts(tokenizer: Any) -> None:
    class Bare:
        chat_template = None
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
            return tokenizer(text, add_special_tokens=add_special_tokens)

    sample = encode(Bare(), asked("one two"), " three")  # type: ignore[arg-type]
    assert tokenizer.decode(sample.input_ids) == "one two three" + tokenizer.eos_token


def test_a_template_that_rewrites_the_prompt_once_it_is_answered_is_refused(tokenizer: Any) -> None:
    class Rewriting:
        chat_template = "…"
        eos_token_id = 2

        def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
            return "open" if add_generation_prompt else "other"

    with pytest.raises(ValueError, match="differently"):
        encode(Rewriting(), asked("p"), "c")  # type: ignore[arg-type]


def test_samples_that_are_too_long_are_left_out_whole_and_counted(tokenizer: Any) -> None:
    long = "word " * 100
    records = [Record(Kind.COMPLETION, asked("short"), ("one",)), Record(Kind.COMPLETION, asked("long"), (long,))]
    kept = encode_all(tokenizer, records, max_length=60)
    assert (len(kept.rows), kept.too_long) == (1, 1)
    assert kept.longest > 100
    assert kept.rows[0] == (encode(tokenizer, asked("short"), "one"),)


def test_of_a_conversation_every_answer_is_trained_and_nothing_else(tokenizer: Any) -> None:
    talk = (
        Message("system", "Be brief."),
        Message("user", "One?"),
        Message("assistant", "Yes."),
        Message("user", "Two?"),
    )
    sample = encode(tokenizer, talk, "No.", earlier_answers=True)
    end = tokenizer.eos_token
    trained = [label for label in sample.labels if label != IGNORED]
    assert tokenizer.decode(trained) == f"Yes.{end}No.{end}"
    whole = [{"role": one.role, "content": one.content} for one in (*talk, Message("assistant", "No."))]
    assert tokenizer.decode(sample.input_ids) == tokenizer.apply_chat_template(whole, tokenize=False).rstrip("\n")
    alone = encode(tokenizer, talk, "No.")
    assert alone.input_ids == sample.input_ids
    assert tokenizer.decode([label for label in alone.labels if label != IGNORED]) == f"No.{end}"
