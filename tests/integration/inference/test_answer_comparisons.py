"""Two versions answer side by side, and a preference between their answers names the comparison."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_events import v1
from tests.integration.inference.conftest import QUESTION, answered, chat
from tests.integration.inference.test_recording import ALL, first_recorded, permit

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-1.4")
async def test_two_versions_answer_side_by_side_and_a_preference_names_the_comparison(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str, mint: Any
) -> None:
    first, second = make_adapter(seed=57), make_adapter(seed=58)
    old = await registry.describe(first, domain)
    new = await registry.describe(second, domain, "1.1.0")
    await registry.activate(old)
    await registry.register(new)
    await registry.publish(
        v1.Approved(
            adapter_id=new.adapter_id,
            family=new.family,
            domain=domain,
            artifact_sha256=new.artifact.blob.sha256,
            revision=registry.next(new.family),
            by="test",
        )
    )
    await permit(registry, domain, ALL)
    models = [f"{old.family}@1.0.0", f"{old.family}@1.1.0", "tiny"]
    body = await answered(inference.client, models[0], compare=models)
    assert (await chat(inference.client, models[1])).status_code == 404, "it is not active: it is compared alone"
    choices = body["choices"]
    assert [one["message"]["content"] for one in choices] == [expected(first), expected(second), expected()]
    assert [one["model"] for one in choices] == models
    assert [one["lorafleet"]["adapter_id"] for one in choices] == [old.adapter_id, new.adapter_id, None]
    comparison = body["lorafleet"]["comparison_id"]
    events = [await first_recorded(registry, one["generation_id"]) for one in choices]
    assert [(one.comparison_id, one.domain) for one in events] == [(comparison, domain)] * 3

    preferred = {"comparison_id": comparison, "preferred": 1, "subject": "user-9"}
    accepted = await inference.client.post("/v1/feedback", json=preferred)
    assert accepted.status_code == 202, accepted.text
    ids = [one["generation_id"] for one in choices]
    assert (accepted.json()["generation_id"], accepted.json()["preferred_over"]) == (ids[1], [ids[0], ids[2]])
    events = [one for one in await registry.published(v1.FeedbackRecorded) if one.generation_id == ids[1]]
    assert [(one.preferred_over, one.adapter_id, one.domain) for one in events] == [
        (ids[0], new.adapter_id, domain),
        (ids[2], new.adapter_id, domain),
    ]
    by_id = await inference.client.post("/v1/feedback", json={"comparison_id": comparison, "preferred": ids[0]})
    assert by_id.json()["preferred_over"] == ids[1:]

    headers = {"Authorization": f"Bearer {mint(['generate', 'feedback'], ['elsewhere'])}"}
    stranger = await inference.client.post("/v1/feedback", json=preferred, headers=headers)
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "generation_not_found")
    asked = {"compare": ["tiny", old.family], "messages": [{"role": "user", "content": QUESTION}]}
    beyond = await inference.client.post("/v1/chat/completions", json=asked, headers=headers)
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n": 2}, "n is not supported with compare"),
        ({"logprobs": True}, "logprobs is not supported with compare"),
        ({"fallback": True}, "fallback is not supported with compare"),
        ({"compare": ["tiny"]}, "two or more models"),
        ({"compare": ["tiny", "tiny"]}, "each once"),
        ({"model": "other"}, "`model` is one of them"),
        ({"compare": ["a", "b", "c", "d", "tiny"]}, "compare"),
    ],
)
async def test_what_a_comparison_cannot_do_is_refused_by_name(
    inference: Any, changes: dict[str, Any], named: str
) -> None:
    body = {"model": "tiny", "compare": ["tiny", "second"], "messages": [{"role": "user", "content": "hi"}]}
    refused = await inference.client.post("/v1/chat/completions", json=body | changes)
    assert refused.status_code in {400, 422}, refused.text
    assert named in refused.json()["error"]["message"]


async def test_a_comparison_that_is_not_ours_and_a_choice_that_it_lacks_are_refused(inference: Any) -> None:
    forged = await inference.client.post("/v1/feedback", json={"comparison_id": "cmp-AAAA", "preferred": 0})
    assert (forged.status_code, forged.json()["error"]["code"]) == (404, "comparison_not_found")
    body = (await chat(inference.client, "tiny", compare=["tiny", "second"])).json()
    comparison = body["lorafleet"]["comparison_id"]
    for preferred in (2, "gen-x"):
        lacking = await inference.client.post(
            "/v1/feedback", json={"comparison_id": comparison, "preferred": preferred}
        )
        assert (lacking.status_code, lacking.json()["error"]["param"]) == (400, "preferred")
