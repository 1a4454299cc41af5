"""Rows whose prompts and answers are lists of messages, as TRL, OpenAI, ShareGPT and axolotl write them."""

import json
from typing import Any

import pytest

from services.trainer.datasets.columns import Columns
from services.trainer.datasets.dataset import InvalidSample
from services.trainer.datasets.records import Kind, Message, Record

pytestmark = pytest.mark.unit

USER = {"role": "user", "content": "May I return sandals?"}
GOOD = {"role": "assistant", "content": "Within 60 days."}
BAD = {"role": "assistant", "content": "No idea."}
BEFORE = [
    {"role": "system", "content": "You work in a shop."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello!"},
]
PROMPT = (Message("user", "May I return sandals?"),)
TALK = (
    Message("system", "You work in a shop."),
    Message("user", "Hello"),
    Message("assistant", "Hello!"),
    *PROMPT,
)


def record(row: dict[str, Any], kind: str) -> Record:
    return Columns().record(row, Kind(kind), "tests")


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, PROMPT),
        ({"prompt": USER["content"], "chosen": GOOD["content"], "rejected": BAD["content"]}, PROMPT),
        ({"prompt": [USER], "chosen": GOOD, "rejected": BAD}, PROMPT),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, PROMPT),
        ({"chosen": [*BEFORE, USER, GOOD], "rejected": [*BEFORE, USER, BAD]}, TALK),
        ({"prompt": USER["content"], "chosen": [*BEFORE, USER, GOOD], "rejected": [*BEFORE, USER, BAD]}, TALK),
        ({"prompt": [*BEFORE, USER], "chosen": [GOOD], "rejected": [BAD]}, TALK),
        ({"prompt": json.dumps([*BEFORE, USER]), "chosen": json.dumps([GOOD]), "rejected": json.dumps([BAD])}, TALK),
        ({"system": "You work in a shop.", "prompt": [*BEFORE[1:], USER], "chosen": [GOOD], "rejected": [BAD]}, TALK),
    ],
)
def test_a_preference_is_read_in_every_form_that_trl_writes(row: dict[str, Any], prompt: tuple[Message, ...]) -> None:
    read = record(row, "preference")
    assert (read.prompt, read.completions) == (prompt, ("Within 60 days.", "No idea."))


def test_completions_and_rankings_may_be_messages_too() -> None:
    assert record({"prompt": [USER], "completion": [GOOD]}, "completion").completions == ("Within 60 days.",)
    assert record({"prompt": [USER], "completions": [[GOOD], [BAD]]}, "ranking").completions == (
        "Within 60 days.",
        "No idea.",
    )


@pytest.mark.parametrize(("label", "rating"), [(True, 5.0), (False, 0.0), ("True", 5.0), ("false", 0.0)])
def test_a_label_of_kto_is_the_best_or_the_worst_rating(label: object, rating: float) -> None:
    row = {"prompt": [USER], "completion": [GOOD], "label": label}
    assert record(row, "rated").rating == rating
    assert record({**row, "rating": 3}, "rated").rating == 3.0
    assert record(row, "completion").rating is None
    assert Columns(rating_best=10).record(row, Kind.RATED, "tests").rating == rating


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "nothing",
    [{"tools": None}, {"tools": []}, {"tools": "[]"}, {"tools": ""}, {"tools": "a hammer"}, {"tools": ["a hammer"]}],
)
def test_columns_called_tools_that_hold_none_are_passed_over(nothing: dict[str, Any]) -> None:
    empty = {"reasoning_content": None, "thinking": ""}
    row = {"messages": [{**USER, **empty}, {**GOOD, **empty}]}
    assert record(row | nothing, "conversation") == record({"messages": [USER, GOOD]}, "conversation")


def test_tools_that_a_recipe_writes_into_the_prompt_are_kept() -> None:
    read = Columns(prompt="{tools} {query}").record(
        {"tools": json.dumps([TOOL]), "query": "q", "completion": "c"}, Kind.COMPLETION, "tests"
    )
    assert read.prompt == (Message("user", json.dumps([TOOL]) + " q"),)


def test_text_that_happens_to_look_like_json_stays_text() -> None:
    assert record({"prompt": "[1, 2]", "completion": '{"a": 1}'}, "completion").completions == ('{"a": 1}',)
    assert record({"prompt": "[1, 2]", "completion": "x"}, "completion").prompt == (Message("user", "[1, 2]"),)


@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0},
        {"weight": 0.0},
        {"train": False},
        {"trainable": False},
        {"training": False},
        {"loss": False},
        {"loss_mask": 0},
    ],
)
def test_an_answer_marked_as_context_is_kept_without_being_learned(mark: dict[str, Any]) -> None:
    talk = [USER, {**BAD, **mark}, {"role": "user", "content": "Sure?"}, {**GOOD, "weight": 1}]
    read = record({"messages": talk}, "conversation")
    assert read.prompt[1] == Message("assistant", "No idea.", trained=False)
    assert read.completions == ("Within 60 days.",)
    assert Record.of_values(read.values()) == read


@pytest.mark.parametrize("mark", [{"training": True}, {"loss": True}, {"loss_mask": 1}, {"train_detail": None}])
def test_an_answer_marked_as_learned_is_as_one_without_a_mark(mark: dict[str, Any]) -> None:
    talk = [USER, GOOD, {"role": "user", "content": "Sure?"}, BAD]
    marked = [USER, {**GOOD, **mark}, *talk[2:]]
    assert record({"messages": marked}, "conversation") == record({"messages": talk}, "conversation")


def test_what_follows_the_last_learned_answer_is_left_out() -> None:
    talk = [USER, GOOD, {"role": "user", "content": "Sure?"}, {**BAD, "weight": 0}]
    read = record({"messages": talk}, "conversation")
    assert (read.prompt, read.completions) == (PROMPT, ("Within 60 days.",))


def test_the_id_of_a_record_without_marks_is_what_it_was_before_there_were_marks() -> None:
    read = record({"messages": [USER, GOOD, USER, BAD]}, "conversation")
    assert read.record_id == "5c5607bd64bd283af74e3670309192ca48c7eaeefa8197a1f8374776075a0232"
    marked = record({"messages": [USER, {**GOOD, "weight": 0}, USER, BAD]}, "conversation")
    assert marked.record_id != read.record_id


@pytest.mark.parametrize(
    "talk",
    [
        [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": GOOD["content"]}],
        [{"role": "system", "content": ""}, USER, GOOD],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "May I return "}, {"type": "text", "text": "sandals?"}],
            },
            GOOD,
        ],
        [USER, {**GOOD, "tool_calls": None, "refusal": None, "name": None}],
        [{"role": None, "from": "user", "content": None, "value": USER["content"]}, GOOD],
        [{"role": "system", "content": None}, USER, GOOD],
        [{"role": "system", "content": []}, USER, GOOD],
        [{"from": "human", "value": USER["content"]}, GOOD],
        [{"role": "User", "content": USER["content"]}, {"role": "Assistant", "content": GOOD["content"]}],
        [{"role": "user", "content": {"type": "text", "text": USER["content"]}}, GOOD],
        [{"role": "user", "content": ["May I return ", "sandals?"]}, GOOD],
        [
            {"role": "user", "content": [{"type": "input_text", "text": USER["content"], "image_url": None}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": GOOD["content"]}]},
        ],
    ],
)
def test_other_tools_words_for_the_same_conversation_are_read(talk: list[dict[str, Any]]) -> None:
    read = record({"messages": talk}, "conversation")
    assert (read.prompt, read.completions) == (PROMPT, ("Within 60 days.",))


def test_a_conversation_is_read_under_sharegpts_name_and_after_the_rows_system_message() -> None:
    talk = [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": GOOD["content"]}]
    read = record({"conversations": talk, "system": "You work in a shop.", "id": None}, "conversation")
    assert read.prompt == (Message("system", "You work in a shop."), *PROMPT)
    assert record({"conversations": talk, "messages": [USER, BAD]}, "conversation").completions == ("No idea.",)


@pytest.mark.parametrize(
    ("row", "kind", "fault"),
    [
        ({"messages": [USER, {**GOOD, "weight": 0.5}]}, "conversation", r"messages: weight 0\.5, expected 0"),
        ({"messages": [USER, {**GOOD, "weight": 0}]}, "conversation", "messages: weight 0 on every answer"),
        ({"messages": [USER, {**GOOD, "loss": "no"}]}, "conversation", "messages: loss 'no', expected 0"),
        (
            {"messages": [USER, {**GOOD, "train_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}]}]},
            "conversation",
            "messages: train_detail, expected answers that are learned whole",
        ),
        ({"messages": [USER, {"role": "tool", "content": "x"}, GOOD]}, "conversation", "messages: role 'tool'"),
        ({"messages": [USER, {**GOOD, "tool_calls": [{"id": "1"}]}]}, "conversation", "messages: an answer that calls"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "conversation", "messages: content nothing"),
        ({"messages": [{"role": "user", "content": []}, GOOD]}, "conversation", "messages: content"),
        ({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "Other?"}, BAD]}, "preference", "chosen: other"),
        ({"prompt": "Other?", "chosen": [USER, GOOD], "rejected": [BAD]}, "preference", "chosen: other messages"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [BAD]}, "preference", "chosen: a last turn of user"),
        ({"prompt": "p", "completion": "c", "system": "cut \ud83d"}, "completion", "system: half a surrogate"),
        ({"prompt": "p", "completion": "c", "id": "cut \ud83d"}, "completion", "id: half a surrogate"),
        ({"prompt": "p", "completion": "c", "system": "nul \x00"}, "completion", "system: a NUL character"),
        ({"system": "Other.", "prompt": [*BEFORE, USER], "completion": "c"}, "completion", "system: another system"),
        (
            {"messages": [USER, {**GOOD, "reasoning_content": "r"}]},
            "conversation",
            "messages: reasoning_content beside",
        ),
        ({"prompt": "p", "completion": [{**GOOD, "thinking": "r"}]}, "completion", "completion: thinking beside"),
        ({"messages": [USER, GOOD], "tools": [TOOL]}, "conversation", "^tools: 1 tools, expected rows without"),
        ({"messages": [USER, GOOD], "tools": json.dumps([TOOL])}, "conversation", "^tools: 1 tools"),
        ({"prompt": "p", "completion": "c", "tools": [json.dumps(TOOL)]}, "completion", "^tools: 1 tools"),
        ({"completion": "c"}, "completion", "prompt: no column 'prompt'"),
        ({"prompt": "p", "completion": "c"}, "rated", "rating: no value in column 'rating', .*'label'"),
        ({"prompt": "p", "completion": "c", "label": 1}, "rated", "rating: no value in column 'rating', .*'label'"),
        (
            {"prompt": [USER], "completion": [GOOD, USER, BAD]},
            "completion",
            "completion: 3 turns that go on from the prompt, expected one answer",
        ),
        ({"talk": [USER, GOOD]}, "conversation", "messages: no column 'messages', expected one of talk"),
        ({"prompt": "p", "chosen": None, "rejected": "r"}, "preference", "chosen: null in column 'chosen'"),
        ({"prompt": "p", "completion": [{**GOOD, "weight": 0}]}, "completion", "completion: weight 0, expected an"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, GOOD]},
            "conversation",
            "messages: a content part of type 'image_url'",
        ),
        ({"prompt": 3, "completion": "c"}, "completion", "prompt: int in column 'prompt'"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_column(row: dict[str, Any], kind: str, fault: str) -> None:
    with pytest.raises(InvalidSample, match=fault):
        record(row, kind)
