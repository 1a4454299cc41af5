"""What a model thinks comes apart from its answer, whole and streamed, wherever its marks are split; nothing is lost."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.reasoning import THINK, ThoughtPart, ThoughtReader
from tests.unit.inference.surface import (
    CHATML,
    HERMES,
    MODEL,
    byte_tokenizer,
    chat,
    official,
    streamed,
    surface,
    text_of,
)
from tests.unit.inference.test_tools import CALL, WEATHER

pytestmark = pytest.mark.unit

SHOWS_THOUGHTS = (
    "{%- for m in messages if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endfor %}"
)
QWEN = CHATML + "{#- thoughts are within <think> and </think> #}" + SHOWS_THOUGHTS
DEEPSEEK = CHATML + "{%- if add_generation_prompt %}<think>\n{% endif %}"
ANSWER = "<think>\nHigh tide was at six.\nSo noon.\n</think>\n\nAt noon."
THOUGHT = "High tide was at six.\nSo noon."


def thinking(answer: str, template: str = QWEN) -> Any:
    return surface(answer, tokenizer=byte_tokenizer(template))


def read(pieces: list[str], *, begun: bool = False) -> tuple[str, str]:
    reader = ThoughtReader(THINK, begun=begun)
    parts = [part for piece in pieces for part in reader.feed(piece)]
    parts += reader.finish()
    thoughts = "".join(part.text for part in parts if isinstance(part, ThoughtPart))
    return thoughts, "".join(part.text for part in parts if not isinstance(part, ThoughtPart))


def cut(text: str, places: list[int]) -> list[str]:
    bounds = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in itertools.pairwise(bounds)]


@given(places=st.lists(st.integers(0, 200), max_size=40))
def test_marks_are_found_however_they_are_split(places: list[int]) -> None:
    assert read(cut(ANSWER, places)) == (THOUGHT, "At noon.")
    assert read(cut(ANSWER.removeprefix("<think>\n"), places), begun=True) == (THOUGHT, "At noon.")
    assert read(cut(ANSWER, places), begun=True) == (THOUGHT, "At noon.")


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "a", "b<", "k>"]), max_size=12),
    begun=st.booleans(),
)
def test_no_text_is_lost(pieces: list[str], begun: bool) -> None:
    text = "".join(pieces)
    thought, answer = read(pieces, begun=begun)
    left = text
    if left.startswith(THINK.begin):
        left = left.removeprefix(THINK.begin)
        begun = True
    if begun:
        left = left.replace(THINK.end, "", 1)
    assert thought + answer == left
    assert begun or not thought


@pytest.mark.parametrize(
    ("answer", "begun", "thought", "text"),
    [
        ("At noon.", False, "", "At noon."),
        (" At <think>noon</think>.", False, "", " At <think>noon</think>."),
        ("<think>\n\n</think>\n\nAt noon.", False, "", "At noon."),
        ("<think>Six, or seven", False, "Six, or seven", ""),
        ("Six, or seven </thi", True, "Six, or seven </thi", ""),
        ("<thin", False, "", "<thin"),
        ("  ", False, "", "  "),
    ],
)
def test_a_thought_stands_at_the_beginning_and_may_be_left_open(
    answer: str, begun: bool, thought: str, text: str
) -> None:
    assert read(list(answer), begun=begun) == (thought, text)


async def test_a_chats_thought_is_its_reasoning_content_whole_and_streamed() -> None:
    http, _ = thinking(ANSWER)
    whole = (await official(http).chat.completions.create(**chat(max_tokens=200))).choices[0]
    assert whole.message.content == "At noon."
    assert (whole.message.model_extra or {})["reasoning_content"] == THOUGHT
    assert whole.finish_reason == "stop"
    chunks = await streamed(http, "/v1/chat/completions", chat(max_tokens=200))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == THOUGHT
    assert "".join(delta.get("content", "") for delta in deltas) == "At noon."


async def test_an_answer_that_is_cut_off_within_a_thought_has_all_of_it_there() -> None:
    http, _ = thinking(ANSWER)
    body = chat(max_tokens=20)
    message = (await http.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("", "High tide wa")


async def test_a_prompt_that_ends_in_the_mark_begins_the_thought() -> None:
    http, _ = thinking(ANSWER.removeprefix("<think>\n"), DEEPSEEK)
    message = (await http.post("/v1/chat/completions", json=chat(max_tokens=200))).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("At noon.", THOUGHT)


async def test_a_model_whose_template_shows_no_thoughts_answers_what_it_writes() -> None:
    http, _ = surface(ANSWER)
    message = (await http.post("/v1/chat/completions", json=chat(max_tokens=200))).json()["choices"][0]["message"]
    assert message["content"] == ANSWER
    assert "reasoning_content" not in message


async def test_an_answer_of_a_set_form_is_no_thought() -> None:
    http, _ = thinking('{"noon": true}', DEEPSEEK)
    body = chat(response_format={"type": "json_object"}, max_tokens=200)
    message = (await http.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    assert message["content"] == '{"noon": true}'


async def test_a_call_comes_behind_the_thought() -> None:
    http, _ = thinking("<think>\nI do not know.\n</think>\n\n" + CALL, HERMES + "{#- </think> #}")
    body = chat(tools=[WEATHER], max_tokens=200)
    choice = (await http.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert choice["message"]["reasoning_content"] == "I do not know."
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert choice["finish_reason"] == "tool_calls"


async def test_a_thought_is_sent_back_and_shown_by_the_template() -> None:
    http, backend = thinking("At noon.")
    for member in ("reasoning_content", "reasoning"):
        turns = ("When?", {"role": "assistant", "content": "Noon.", member: THOUGHT}, "Sure?")
        assert (await http.post("/v1/chat/completions", json=chat(*turns))).status_code == 200
        assert f"<think>\n{THOUGHT}\n</think>" in text_of(backend.requests[-1])


async def test_a_responses_thought_is_an_item_of_its_own() -> None:
    http, backend = thinking(ANSWER)
    client = official(http)
    answer: Any = await client.responses.create(model=MODEL, input="When?", max_output_tokens=200)
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert [part.text for part in answer.output[0].content] == [THOUGHT]
    assert answer.output_text == "At noon."
    thought_tokens = len(ANSWER) - len("\n\nAt noon.")
    assert answer.usage.output_tokens_details.reasoning_tokens == pytest.approx(thought_tokens, abs=8)
    events = [
        event
        async for event in await client.responses.create(model=MODEL, input="When?", max_output_tokens=200, stream=True)
    ]
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds[2:6] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
    ]
    assert "".join(one.delta for one in events if one.type == "response.reasoning_text.delta") == THOUGHT
    assert [one.item.type for one in events if one.type == "response.output_item.done"] == ["reasoning", "message"]
    turns: list[Any] = [{"role": "user", "content": "When?"}, *answer.output, {"role": "user", "content": "Sure?"}]
    await client.responses.create(model=MODEL, input=turns)
    whole = text_of(backend.requests[-1])
    await client.responses.create(model=MODEL, input="Sure?", previous_response_id=answer.id)
    assert text_of(backend.requests[-1]) == whole
    assert f"<think>\n{THOUGHT}\n</think>" in whole
