"""Messages of a chat request: which members and roles are taken, and which are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from inference.surface import CHATML, MODEL, byte_tokenizer, chat, official, surface, text_of

pytestmark = pytest.mark.unit


async def test_an_answers_message_can_be_sent_back_as_the_official_client_holds_it() -> None:
    http, backend = surface("Within 60 days.")
    first = await official(http).chat.completions.create(**chat("May I return sandals?"))
    messages: list[Any] = [first.choices[0].message, {"role": "user", "content": "And boots?"}]
    again = await official(http).chat.completions.create(model=MODEL, messages=messages)
    assert again.choices[0].message.content == "Within 60 days."
    assert "<|im_start|>assistant\nWithin 60 days.<|im_end|>" in text_of(backend.requests[1])


@pytest.mark.parametrize(
    "more",
    [
        {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": None},
        {"annotations": [], "tool_calls": [], "refusal": ""},
        {"reasoning": None, "reasoning_content": "", "provider_specific_fields": {"refusal": None}},
        {"anything_that_a_client_adds": None, "name": None},
        {"images": [], "thinking_blocks": [], "id": "chatcmpl-1", "created": 1767225600, "index": 0},
        {"another": {}, "more": ""},
    ],
)
async def test_members_of_a_message_that_say_nothing_are_taken(more: dict[str, Any]) -> None:
    http, backend = surface()
    answer = await http.post(
        "/v1/chat/completions", json=chat("Hi", {"role": "assistant", "content": "Yes?", **more}, "Go")
    )
    assert answer.status_code == 200, answer.text
    assert "assistant\nYes?<" in text_of(backend.requests[0])


async def test_an_empty_answer_may_come_back_without_content() -> None:
    http, backend = surface()
    answer = await http.post("/v1/chat/completions", json=chat("Hi", {"role": "assistant", "content": None}, "Go"))
    assert answer.status_code == 200, answer.text
    assert "assistant\n<|im_end|>" in text_of(backend.requests[0])


async def test_roles_are_the_templates_own_and_text_parts_are_one_text() -> None:
    http, backend = surface()
    body = chat(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "there?"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "function", "name": "weather", "content": "wind"},
    )
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    wanted = [("system", "Be brief."), ("user", "Weather there?"), ("tool", "rain"), ("tool", "wind")]
    turns = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in wanted)
    assert text_of(backend.requests[0]) == turns + "<|im_start|>assistant\n"


async def test_a_template_that_would_drop_a_tools_turn_in_silence_refuses_it() -> None:
    blind = CHATML.replace("{%- for m in messages %}", "{%- for m in messages if m.role != 'tool' %}")
    http, _ = surface(tokenizer=byte_tokenizer(blind))
    body = chat("Weather?", {"role": "tool", "tool_call_id": "1", "content": "rain"})
    refused = await http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "role tool" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "tool_calls: not supported"),
        ({"role": "assistant", "content": "", "refusal": "I will not"}, "refusal: not supported"),
        ({"role": "assistant", "content": "", "images": [{"type": "image_url"}]}, "messages.0.images"),
        ({"role": "assistant", "content": "", "thinking_blocks": [{"thinking": "so"}]}, "messages.0.thinking_blocks"),
        ({"role": "assistant", "content": "", "flag": False}, "messages.0.flag"),
        ({"role": "user", "content": "Hi", "images": []}, "messages.0.images"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "a part of type image_url"),
        ({"role": "user", "content": None}, "a turn of role user without content"),
        ({"role": "poet", "content": "o"}, "role"),
    ],
)
async def test_turns_that_say_more_than_text_are_refused_by_name(turn: dict[str, Any], message: str) -> None:
    http, backend = surface()
    refused = await http.post("/v1/chat/completions", json=chat(turn))
    assert refused.status_code == 422
    assert message in refused.json()["error"]["message"]
    assert backend.requests == []


async def test_tools_that_may_not_be_called_are_no_part_of_the_prompt() -> None:
    http, backend = surface()
    tools = [{"type": "function", "function": {"name": "f"}}]
    for more in ({}, {"tools": tools, "tool_choice": "none"}):
        assert (await http.post("/v1/chat/completions", json=chat("Hi", **more))).status_code == 200
    plain, offered = backend.requests
    assert offered.prompt_ids == plain.prompt_ids
    for choice in ({"tool_choice": "auto"}, {"function_call": "none"}, {}):
        assert (await http.post("/v1/chat/completions", json=chat(tools=tools, **choice))).status_code == 422


THINKING = (
    CHATML
    + "{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{{ style.tone if style is defined }}"
)


async def test_a_request_sets_the_variables_that_the_models_template_reads() -> None:
    http, backend = surface(tokenizer=byte_tokenizer(THINKING))
    for more in ({}, {"enable_thinking": False, "style": {"tone": "dry"}, "unset": None}):
        answer = await http.post("/v1/chat/completions", json=chat(chat_template_kwargs=more))
        assert answer.status_code == 200, answer.text
    plain, quick = map(text_of, backend.requests)
    assert quick == plain + "<think></think>dry"


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({"enable_thought": False}, 400, "no variable 'enable_thought': it reads enable_thinking, style"),
        ({"messages": "no"}, 400, "no variable 'messages'"),
        ({"style": ["dry"]}, 422, "expected text, finite numbers, booleans"),
        ({"style": {"a": {"b": {"c": {"d": 1}}}}}, 422, "at most 4 deep"),
        ({"style": "x" * 5000}, 422, "at most 4096 bytes"),
    ],
)
async def test_other_variables_of_the_template_are_refused_by_name(given: object, status: int, message: str) -> None:
    http, _ = surface(tokenizer=byte_tokenizer(THINKING))
    answer = await http.post("/v1/chat/completions", json=chat(chat_template_kwargs=given))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, "chat_template_kwargs")
    assert message in error["message"]
