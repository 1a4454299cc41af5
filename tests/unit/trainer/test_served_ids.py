"""What is trained is what is served: the ids of training and of serving, for the chat templates of many model families.

The templates are those of chat_templates.py, on a tokenizer of bytes and the family's special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lora_core.base_model import end_tokens
from services.inference.tokenizer import Vocabulary
from services.trainer.datasets.records import Kind, Message, Record
from services.trainer.training.encoding import (
    IGNORED,
    TEMPLATE_DATE,
    EncodedSample,
    UnfitRecord,
    encode,
    encode_record,
    prompt_ids,
)
from tests.unit.trainer.chat_family import Family
from tests.unit.trainer.chat_templates import FAMILIES

pytestmark = pytest.mark.unit

SYSTEM = (Message("system", "Be brief."),)
TALK = (Message("user", "One?"), Message("assistant", "Yes."), Message("user", "Two?"))


def tokenizer_of(family: Family) -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=family.bos,
        eos_token=family.eos,
        additional_special_tokens=[one for one in family.special if one not in (family.bos, family.eos)],
    )
    made.chat_template = family.template
    return made


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def tokenizer(family: Family) -> Any:
    return tokenizer_of(family)


@pytest.fixture(scope="module")
def served(tokenizer: Any) -> Iterator[Vocabulary]:
    vocabulary = Vocabulary(tokenizer)
    yield vocabulary
    vocabulary.close()


def talk_of(family: Family) -> tuple[Message, ...]:
    return (*SYSTEM, *TALK) if family.system else TALK


def learned(tokenizer: Any, sample: EncodedSample) -> str:
    return str(tokenizer.decode([one for one in sample.labels if one != IGNORED], skip_special_tokens=False))


def as_served(vocabulary: Vocabulary, tokenizer: Any, prompt: tuple[Message, ...]) -> list[int]:
    """Serving's ids, with the day of training in place of today in templates that write it."""
    ids = vocabulary.of_chat([(one.role, one.content) for one in prompt])
    if "strftime_now" not in tokenizer.chat_template:
        return ids
    today, then = (day.strftime("%d %b %Y") for day in (date.today(), TEMPLATE_DATE))
    text = vocabulary.decode(ids, skip_special_tokens=False)
    assert re.search(rf"Today Date: {today}", text)
    return list(tokenizer(text.replace(today, then), add_special_tokens=False)["input_ids"])


def test_the_prompt_is_the_documented_one_and_has_the_same_ids_in_training_and_serving(
    family: Family, tokenizer: Any, served: Vocabulary
) -> None:
    talk = talk_of(family)
    ids = prompt_ids(tokenizer, talk)
    assert tokenizer.decode(ids, skip_special_tokens=False) == family.prompt
    assert as_served(served, tokenizer, talk) == ids


def test_the_answer_is_learned_as_it_is_generated_and_ends_where_serving_stops(
    family: Family, tokenizer: Any, served: Vocabulary
) -> None:
    talk = talk_of(family)
    sample = encode(tokenizer, talk, "No.")
    opening = as_served(served, tokenizer, talk)
    assert list(sample.input_ids[: len(opening)]) == opening
    assert set(sample.labels[: len(opening)]) == {IGNORED}
    assert list(sample.input_ids[len(opening) :]) == list(sample.labels[len(opening) :])
    assert learned(tokenizer, sample) == family.learned
    stops = end_tokens(None, tokenizer)
    assert sample.input_ids[-1] in stops
    assert not stops & set(sample.input_ids[len(opening) : -1])


def test_every_answer_of_a_talk_follows_the_ids_that_serving_has_before_it(
    family: Family, tokenizer: Any, served: Vocabulary
) -> None:
    talk = talk_of(family)
    samples = encode_record(tokenizer, Record(Kind.CONVERSATION, talk, ("No.",)), 1)
    for before, answer in ((talk[:-2], "Yes."), (talk, "No.")):
        opening = as_served(served, tokenizer, before)
        wanted = tokenizer(family.learned.replace("No.", answer), add_special_tokens=False)["input_ids"]
        whole = [*opening, *wanted]
        (_,) = [
            sample
            for sample in samples
            if list(sample.input_ids[: len(whole)]) == whole
            and list(sample.labels[len(opening) : len(whole)]) == wanted
            and sample.labels[len(opening) - 1] == IGNORED
        ]
    assert sum(sample.trained_tokens for sample in samples) == sum(
        len(tokenizer(family.learned.replace("No.", answer), add_special_tokens=False)["input_ids"])
        for answer in ("Yes.", "No.")
    )


def test_a_reasoning_that_the_prompt_opens_is_learned_up_to_its_end() -> None:
    family = FAMILIES["DeepSeek R1"]
    tokenizer = tokenizer_of(family)
    for answer in ("<think>\nTwo is even.\n</think>\n\nNo.", "Two is even.</think>No."):
        sample = encode(tokenizer, talk_of(family), answer)
        text = tokenizer.decode(sample.input_ids, skip_special_tokens=False)
        assert text == family.prompt + "Two is even.\n</think>\n\nNo.<｜end▁of▁sentence｜>"
        assert learned(tokenizer, sample) == "Two is even.\n</think>\n\nNo.<｜end▁of▁sentence｜>"


def test_a_template_without_a_system_role_refuses_one_by_name() -> None:
    with pytest.raises(UnfitRecord, match="refuses messages of system, user, assistant, user: System role not supp"):
        encode(tokenizer_of(FAMILIES["Gemma 2"]), (*SYSTEM, *TALK), "No.")
