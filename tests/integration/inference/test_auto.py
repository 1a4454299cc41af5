"""`model: auto` over a real router."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet_events import v1
from tests.integration.inference.conftest import answered, chat, eventually, text_of


@pytest.fixture
async def with_router(run_service: Any, settings_of_inference: dict[str, str]) -> AsyncIterator[Any]:
    async with (
        run_service("router") as router,
        run_service("inference", **settings_of_inference, LORAFLEET_ROUTER_URL=router.url) as inference,
    ):
        yield inference, router


async def test_auto_finds_the_adapter_or_says_that_the_base_model_answers(
    with_router: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    inference, router = with_router
    made = make_adapter(seed=41)
    prompts = ("What does the tide do in the evening?", "When is high water?")
    adapter = await registry.describe(made, domain, example_prompts=prompts, description="questions on tides")
    await registry.activate(adapter)

    async def routed() -> Any:
        return (await answered(inference.client, "auto"))["lorafleet"]["routed"]["matched"]

    await eventually(routed)
    body = await answered(inference.client, "auto")
    assert body["lorafleet"]["routed"]["adapter_id"] == adapter.adapter_id == body["lorafleet"]["adapter_id"]
    assert body["lorafleet"]["routed"]["score"] > 0.42
    assert text_of(body) == expected(made)
    # With its domain's consent such an answer is recorded with the reason of its choice.
    await registry.publish(
        v1.PolicyChanged(
            domain=domain,
            revision=1,
            by="test",
            record_answers=v1.RecordAnswers.ALL,
            personal_data=v1.PersonalDataAction.MASK,
        )
    )

    async def recorded() -> Any:
        await answered(inference.client, "auto")
        found = await registry.published(v1.GenerationRecorded)
        return [one for one in found if one.domain == domain]

    [event, *_] = await eventually(recorded)
    assert (event.requested_model, event.adapter_id) == ("auto", adapter.adapter_id)
    assert "nearest adapter, similarity" in event.routed
    question = "Who painted the ceiling of the Sistine Chapel?"
    body = await answered(inference.client, "auto", messages=[{"role": "user", "content": question}])
    assert body["lorafleet"]["adapter_id"] is None
    assert body["lorafleet"]["routed"]["matched"] is False
    assert "base model answers" in body["lorafleet"]["routed"]["reason"]
    assert text_of(body) == expected(question=question)
    # Without its router it refuses; the base model does not step in.
    await router.crash()
    refused = await chat(inference.client, "auto")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "router_unavailable")
