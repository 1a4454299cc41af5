"""Bodies that real clients sent, as `tests/clients/record.py` recorded them, get the answers that those clients got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.surface import surface
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
    http, backend = surface("Noon.")
    body = request_["body"]
    answer = await http.post(request_["path"], json=body)
    assert answer.status_code == request_["status"], answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["param"] == "tools"
        assert backend.requests == []
    elif body.get("stream"):
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        chunks = [json.loads(one) for one in events[:-1]]
        text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
        assert text == "Noon."
        asks = bool(body.get("stream_options", {}).get("include_usage"))
        assert bool(chunks[-1].get("usage")) is asks
    else:
        body_of_answer = answer.json()
        assert body_of_answer["usage"]["total_tokens"] > 0
        assert len(body_of_answer.get("choices") or body_of_answer["data"]) == _wanted(body)


def _wanted(body: dict[str, Any]) -> int:
    several = body.get("prompt", body.get("input", ""))
    return int(body.get("n", 1)) * (len(several) if isinstance(several, list) else 1)
