"""Token ids and labels, with the real tokenizer and its chat template."""

import copy
from pathlib import Path
from typing import Any

import pytest

from lora_core.base_model import end_tokens
from services.trainer.datasets.records import Kind, Message, Record, prompt_messages
from services.trainer.training.encoding import (
    IGNORED,
    EncodedSample,
    UnfitRecord,
    UnfitTokenizer,
    encode,
    encode_all,
    encode_conversation,
    prompt_ids,
)

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model, local_files_only=True)


@pytest.mark.requirement("TP-1.1")
def test_loss_is_on_the_completion_and_its_end_alone(tokenizer: Any) -> None:
    sample = encode(tokenizer, prompt_messages("Who keeps the lamp?"), "The keeper of the lamp.")
    trained = [label for label in sample.labels if label != IGNORED]
    assert tokenizer.decode(trained) == "The keeper of the lamp." + tokenizer.eos_token
    assert trained == list(sample.input_ids[-len(trained) :])
    assert set(sample.labels[: -len(trained)]) == {IGNORED}


def test_a_prompt_is_encoded_exactly_as_generation_sees_it(tokenizer: Any) -> None:
    talk = [{"role": "user", "content": "Who keeps the lamp?"}]
    seen = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    sample = encode(tokenizer, prompt_messages("Who keeps the lamp?"), "\n\nNobody.")
    assert list(sample.input_ids[: len(seen)]) == seen == prompt_ids(tokenizer, "Who keeps the lamp?")
    assert sample.labels[len(seen) - 1] == IGNORED
    assert sample.labels[len(seen)] != IGNORED


def test_a_model_without_chat_template_is_trained_on_the_bare_texts(tokenizer: Any) -> None:
    class Bare:
        chat_template = None
        eos_token_id = tokenizer.eos_token_id
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
            return tokenizer(text, add_special_tokens=add_special_tokens)

    sample = encode(Bare(), prompt_messages("one two"), " three")  # type: ignore[arg-type]
    assert tokenizer.decode(sample.input_ids) == "one two three" + tokenizer.eos_token


def test_a_template_that_rewrites_the_prompt_once_it_is_answered_is_refused(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{% if add_generation_prompt %}open{% else %}other{% endif %}"
    with pytest.raises(UnfitTokenizer, match="differently"):
        encode(changed, prompt_messages("p"), "c")


def test_a_template_that_writes_the_date_gives_the_same_ids_on_every_day(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    sample = encode(changed, prompt_messages("One?"), "Yes.")
    assert changed.decode(sample.input_ids).startswith("26 Jul 2024")


def test_samples_that_are_too_long_are_left_out_whole_and_counted(tokenizer: Any) -> None:
    long = "word " * 100
    records = [
        Record(Kind.COMPLETION, prompt_messages("short"), ("one",)),
        Record(Kind.COMPLETION, prompt_messages("long"), (long,)),
    ]
    kept = encode_all(tokenizer, records, max_length=60)
    assert (len(kept.rows), kept.too_long) == (1, 1)
    assert kept.longest > 100
    assert kept.rows[0] == (encode(tokenizer, prompt_messages("short"), "one"),)


TALK = (
    Message("system", "Be brief."),
    Message("user", "One?"),
    Message("assistant", "Yes."),
    Message("user", "Two?"),
)
CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
OPENED = CHATML.replace("assistant\n", "assistant\n<think>\n")
CLOSED = CHATML.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n")
QWEN3_LIKE = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}"
    "{%- endif %}{%- endfor %}{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{{ m.content + '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


def learned(tokenizer: Any, sample: EncodedSample) -> str:
    return str(tokenizer.decode([label for label in sample.labels if label != IGNORED]))


def test_of_a_conversation_every_answer_is_trained_and_nothing_else(tokenizer: Any) -> None:
    (sample,) = encode_conversation(tokenizer, TALK, "No.")
    end = tokenizer.eos_token
    assert learned(tokenizer, sample) == f"Yes.{end}No.{end}"
    whole = [{"role": one.role, "content": one.content} for one in (*TALK, Message("assistant", "No."))]
    assert tokenizer.decode(sample.input_ids) == tokenizer.apply_chat_template(whole, tokenize=False).rstrip("\n")
    alone = encode(tokenizer, TALK, "No.")
    assert alone.input_ids == sample.input_ids
    assert learned(tokenizer, alone) == f"No.{end}"


def test_an_answer_that_is_not_to_be_learned_stays_as_context_without_loss(tokenizer: Any) -> None:
    talk = tuple(Message(one.role, one.content, one.role != "assistant") for one in TALK)
    (sample,) = encode_conversation(tokenizer, talk, "No.")
    assert learned(tokenizer, sample) == f"No.{tokenizer.eos_token}"
    assert "Yes." in tokenizer.decode(sample.input_ids)


@pytest.mark.parametrize("before", [(), (Message("system", "Be brief."),)])
def test_a_greeting_before_the_first_question_is_context_and_later_answers_are_learned(
    tokenizer: Any, before: tuple[Message, ...]
) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = CHATML
    (sample,) = encode_conversation(changed, (*before, Message("assistant", "Hello!"), *TALK[1:]), "No.")
    assert learned(changed, sample) == "Yes.<|im_end|>No.<|im_end|>"
    assert "<|im_start|>assistant\nHello!<|im_end|>" in changed.decode(sample.input_ids)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<think>r</think>\n\nA", "r\n</think>\n\nA"),
        ("<think> r</think>A", "r\n</think>\n\nA"),
        ("\n<think>\nr</think>A", "r\n</think>\n\nA"),
        ("<think>\nr\n</think>\n\nA", "r\n</think>\n\nA"),
        ("r</think>A", "r\n</think>\n\nA"),
        ("A", "\n</think>\n\nA"),
    ],
)
def test_reasoning_that_the_template_keeps_is_learned_once_where_the_prompt_opens_it(
    tokenizer: Any, answer: str, expected: str
) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = OPENED
    assert learned(changed, encode(changed, prompt_messages("One?"), answer)) == f"{expected}<|im_end|>"


@pytest.mark.parametrize("answer", ["A", "<think>r</think>\n\nA", "<think>\n\n</think>\n\nA"])
def test_where_the_prompt_closes_the_reasoning_at_once_the_answer_behind_it_is_learned(
    tokenizer: Any, answer: str
) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = CLOSED
    talk = (Message("user", "One?"), Message("assistant", answer), Message("user", "Two?"))
    first, second = encode_conversation(changed, talk, "B </think> B")
    assert learned(changed, first) == "A<|im_end|>"
    assert learned(changed, second) == "B </think> B<|im_end|>"
    opening = prompt_ids(changed, talk)
    assert changed.decode(opening).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert list(second.input_ids[: len(opening)]) == opening


def test_a_template_that_shortens_earlier_answers_gives_a_sample_for_each_answer(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = QWEN3_LIKE
    samples = encode_conversation(changed, TALK, "No.")
    for sample, before in zip(samples, (TALK[:2], TALK), strict=True):
        opening = prompt_ids(changed, before)
        assert list(sample.input_ids[: len(opening)]) == opening
        assert set(sample.labels[: len(opening)]) == {IGNORED}
    assert [learned(changed, sample) for sample in samples] == [
        "<think>\n\n</think>\n\nYes.<|im_end|>",
        "<think>\n\n</think>\n\nNo.<|im_end|>",
    ]
    record = Record(Kind.CONVERSATION, TALK, ("No.",))
    assert encode_all(changed, [record], max_length=200).rows == tuple((sample,) for sample in samples)


def test_the_templates_end_of_turn_ends_an_answer_with_any_end_token_of_the_tokenizer(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = "<|endoftext|>"  # as in base models of ChatML
    assert learned(changed, encode(changed, prompt_messages("One?"), "Yes.")) == "Yes.<|im_end|>"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in end_tokens(None, changed)
    assert changed.eos_token_id in end_tokens(None, changed)


def test_a_template_that_ends_turns_with_plain_text_has_answers_end_with_the_tokenizers_end(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = (
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}"
    )
    assert learned(changed, encode(changed, prompt_messages("One?"), "Yes.")) == f"Yes.{tokenizer.eos_token}"
    first, second = encode_conversation(changed, TALK, "No.")
    assert learned(changed, first) == f"Yes.{tokenizer.eos_token}"
    assert tokenizer.eos_token not in changed.decode(second.input_ids[:-1])  # no end between turns


def test_what_a_template_refuses_is_a_fault_of_the_record_with_the_templates_own_words(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ raise_exception('there is no system role here') }}"
    with pytest.raises(UnfitRecord, match=r"refuses messages of system, user: there is no system role here"):
        encode(changed, prompt_messages("One?", system="Be brief."), "Yes.")


def test_an_end_token_in_the_midst_of_a_completion_is_refused_and_one_at_its_end_is_learned_once(
    tokenizer: Any,
) -> None:
    end = tokenizer.eos_token
    with pytest.raises(UnfitRecord, match=r"end-of-turn token '<\|im_end\|>' in its midst, after 'One'"):
        encode(tokenizer, prompt_messages("Count."), f"One{end}\nTwo")
    plain, ended = (encode(tokenizer, prompt_messages("Count."), text) for text in ("One", f"One{end}\n"))
    assert list(ended.input_ids) == list(plain.input_ids)
    assert learned(tokenizer, ended) == "One" + end
