"""A base model folder whose chat template runs for ever, writes without end, or takes all memory."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import RunningService
from tests.integration.inference.conftest import TOKENS, chat

pytestmark = pytest.mark.integration

HOSTILE = (
    "{% set asked = messages[0].content %}"
    "{% if asked == 'time' %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    "{% if asked == 'memory' %}{{ 'x' | center(10 ** 10) }}{% endif %}"
    "{% if asked == 'text' %}{% for i in range(99999) %}{{ 'and so on ' }}{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)


@pytest.fixture(scope="module")
def settings_of_inference(
    settings_of_inference: dict[str, str], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models") / "hostile"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(HOSTILE)
    return settings_of_inference | {"LORAFLEET_FURTHER_BASE_MODELS": json.dumps({"hostile": str(folder)})}


async def test_a_chat_template_without_end_costs_its_own_request_alone(
    inference: RunningService, evaluator: httpx.AsyncClient
) -> None:
    undisturbed = (await chat(evaluator, "tiny")).json()["choices"]

    async def ask(what: str) -> httpx.Response:
        return await chat(evaluator, "hostile", messages=[{"role": "user", "content": what}])

    hostile = [asyncio.create_task(ask(what)) for what in ("time", "memory", "text", "time")]
    slowest, beside = 0.0, 0
    while not all(task.done() for task in hostile):
        begun = time.monotonic()
        assert (await evaluator.get("/healthz")).status_code == 200
        slowest = max(slowest, time.monotonic() - begun)
        assert (await chat(evaluator, "tiny")).json()["choices"] == undisturbed
        beside += 1
    refused = [task.result() for task in hostile]
    assert [one.status_code for one in refused] == [400] * 4, [one.text for one in refused]
    assert {one.json()["error"]["code"] for one in refused} == {"template_too_costly"}
    assert {one.json()["error"]["param"] for one in refused} == {"messages"}
    assert beside > 0
    assert slowest < 5, "a template held the event loop"
    # The model itself goes on, for conversations that its template bears and for plain texts.
    assert (await ask("an ordinary question")).status_code == 200
    plain = await evaluator.post(
        "/v1/completions", json={"model": "hostile", "prompt": "The tide", "max_tokens": TOKENS}
    )
    assert plain.status_code == 200
    counted = (await inference.client.get("/metrics")).text
    for limit, count in (("time", 2), ("memory", 1), ("text", 1)):
        assert f'lorafleet_inference_template_limits_total{{limit="{limit}"}} {count}.0' in counted
