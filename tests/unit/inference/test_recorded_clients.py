"""Bodies that real clients sent, as `tests/clients/record.py` recorded them, get the answers that those clients got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleet_kit.auth import Caller
from inference.surface import HERMES, application, byte_tokenizer
from services.inference.http import api
from services.inference.http.messages import CalledFunction, ChatMessage, ToolCall
from services.inference.http.responses.output import response_of
from services.inference.http.responses.store import KeptResponse
from tests.clients.programs import CLIENTS

pytestmark = pytest.mark.unit

RECORDED = json.loads((Path(__file__).parents[2] / "fixtures" / "clients.json").read_text())
REQUESTS = [
    pytest.param(one, id=f"{recorded['client']} {number} {one['path']}")
    for recorded in RECORDED.values()
    for number, one in enumerate(recorded["requests"])
]
CLIENTS_OF_TESTS = Path(__file__).parents[2] / "clients"


def test_every_client_that_is_tried_is_recorded_in_the_version_that_is_installed_for_it() -> None:
    assert list(RECORDED) == [client.name for client in CLIENTS]
    pinned = {
        line.partition("==")[0].partition("[")[0]: line.partition("==")[2]
        for file in ("requirements.txt", "requirements-instructor.txt")
        for line in (CLIENTS_OF_TESTS / file).read_text().splitlines()
        if "==" in line
    }
    node = json.loads((CLIENTS_OF_TESTS / "package.json").read_text())["dependencies"]
    versions = {
        "openai_python": pinned["openai"],
        "openai_node": node["openai"],
        "litellm_client": pinned["litellm"],
        "langchain_client": pinned["langchain-openai"],
        "pydantic_ai_client": pinned["pydantic-ai-slim"],
        "instructor_client": pinned["instructor"],
        "ai_sdk": node["ai"],
        "lm_eval_client": pinned["lm-eval"],
    }
    docs = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    for name, version in versions.items():
        assert version in docs
        assert version in RECORDED[name]["client"].replace(",", "").split()


@pytest.mark.parametrize("request_", REQUESTS)
async def test_a_recorded_request_is_answered_as_it_was(request_: dict[str, Any]) -> None:
    app, _ = application("Noon.", tokenizer=byte_tokenizer(HERMES), obedient=True)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inference")
    body = request_["body"]
    await _store_what_it_continues(app, body)
    answer = await http.post(request_["path"], json=body)
    assert answer.status_code == request_["status"], answer.text
    held = bool(body.get("response_format") or body.get("text") or body.get("tools"))
    if request_["path"] == "/v1/responses":
        events = [
            json.loads(one.partition("data: ")[2]) for one in answer.text.split("\n\n") if one.startswith("event")
        ]
        response = events[-1]["response"] if body.get("stream") else answer.json()
        assert response["usage"]["total_tokens"] > 0
        assert _output(response) == "Noon." or held
    elif body.get("stream"):
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        chunks = [json.loads(one) for one in events[:-1]]
        text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
        assert text == "Noon." or held
        asks = bool(body.get("stream_options", {}).get("include_usage"))
        assert bool(chunks[-1].get("usage")) is asks
    else:
        body_of_answer = answer.json()
        assert body_of_answer["usage"]["total_tokens"] > 0
        assert len(body_of_answer.get("choices") or body_of_answer["data"]) == _wanted(body)


def _wanted(body: dict[str, Any]) -> int:
    several = body.get("prompt", body.get("input", ""))
    return int(body.get("n", 1)) * (len(several) if isinstance(several, list) else 1)


def _output(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


async def _store_what_it_continues(app: FastAPI, body: dict[str, Any]) -> None:
    """Responses of the recording, as far as a request refers to them."""
    store, caller = app.dependency_overrides[api._parts]().responses, Caller("user", frozenset(), frozenset({"*"}))
    items = body["input"] if isinstance(body.get("input"), list) and "model" in body else []
    items = [item for item in items if isinstance(item, dict)]
    calls = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    made = [ToolCall(id=call, function=CalledFunction(name="greet")) for call in calls]
    turns = [ChatMessage(role="user", content="When?"), ChatMessage(role="assistant", content="Noon.", tool_calls=made)]
    if continued := body.get("previous_response_id"):
        await store.keep(continued, caller, KeptResponse(response={"output": []}, turns=turns))
    for referred in [item["id"] for item in items if item.get("type") == "item_reference"]:
        output = list(_items(items, calls, response_of(referred)))
        await store.keep(response_of(referred), caller, KeptResponse(response={"output": output}, turns=turns))


def _items(items: list[dict[str, Any]], calls: list[str], response_id: str) -> Iterator[dict[str, Any]]:
    for item in items:
        if item.get("type") != "item_reference" or response_of(item["id"]) != response_id:
            continue
        if item["id"].startswith("fc_"):
            yield {"type": "function_call", "id": item["id"], "call_id": calls[0], "name": "greet", "arguments": "{}"}
        else:
            text = [{"type": "output_text", "text": "Noon.", "annotations": []}]
            yield {"type": "message", "id": item["id"], "role": "assistant", "content": text}
