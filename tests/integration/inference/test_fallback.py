"""Another model answers where an adapter cannot, and the response gives the reason."""

import json
from typing import Any

import pytest

from fleet_events import v1
from tests.integration.inference.conftest import answered, chat, eventually, text_of


@pytest.mark.requirement("AS-9.2")
async def test_a_fallback_answers_only_where_it_is_allowed_and_the_response_says_so(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=41)
    spare = await registry.describe(made, f"{domain}spare")
    retired = await registry.describe(make_adapter(seed=42), domain)
    for adapter in (spare, retired):
        await registry.activate(adapter)
        await answered(inference.client, adapter.adapter_id)
    await registry.deactivate(retired)

    async def refused() -> Any:
        return (await chat(inference.client, retired.family)).status_code == 409

    await eventually(refused)
    assert (await chat(inference.client, retired.family, fallback=True)).status_code == 409, "none is configured"
    body = (await chat(inference.client, retired.family, fallback=spare.family)).json()
    assert text_of(body) == expected(made)
    extra = body["lorafleet"]
    assert extra["adapter_id"] == spare.adapter_id
    assert (extra["fallback"]["requested"], extra["fallback"]["reason"]) == (retired.family, "adapter_not_active")
    serving = (await chat(inference.client, spare.family, fallback="tiny")).json()
    assert (text_of(serving), serving["lorafleet"]["fallback"]) == (expected(made), None)
    unknown = await chat(inference.client, "ghost", fallback="tiny")
    assert unknown.status_code == 404

    async def completed() -> Any:
        return [one for one in await registry.published(v1.GenerationCompleted) if one.generation_id == body["id"]]

    [event] = await eventually(completed)
    assert (event.requested_model, event.adapter_id) == (retired.family, spare.adapter_id)
    assert event.fallback == "adapter_not_active"


@pytest.mark.requirement("AS-9.2")
async def test_a_configured_fallback_stands_in_for_an_adapter_that_fails_its_checks(
    run_service: Any,
    settings_of_inference: dict[str, str],
    registry: Any,
    make_adapter: Any,
    expected: Any,
    domain: str,
) -> None:
    broken = await registry.describe(make_adapter(seed=43, scale=0.0), domain)  # changes nothing: never served
    await registry.activate(broken)
    fallbacks = json.dumps({f"{domain}-lora": "tiny"})
    async with run_service("inference", **settings_of_inference, LORAFLEET_FALLBACKS=fallbacks) as running:

        async def fails() -> Any:
            return (await chat(running.client, broken.adapter_id)).status_code == 422

        await eventually(fails)
        body = (await chat(running.client, broken.adapter_id, fallback=True)).json()
    assert text_of(body) == expected()
    assert body["lorafleet"]["adapter_id"] is None
    assert body["lorafleet"]["fallback"]["reason"] == "artifact_invalid"
