"""`POST /v1/feedback`: what rates an answer, or its route, and what becomes an event."""

from typing import Any

from fleet_events import v1
from tests.integration.inference.conftest import answered


async def test_feedback_on_an_answer_names_its_adapter(
    inference: Any, registry: Any, make_adapter: Any, domain: str, mint: Any
) -> None:
    adapter = await registry.describe(make_adapter(seed=1), domain)
    await registry.activate(adapter)
    answer = await answered(inference.client, adapter.adapter_id)
    # The id alone carries it: the process that answered is gone.
    await inference.crash()
    await inference.start()
    body = {"generation_id": answer["id"], "rating": 4, "comment": "nearly"}
    accepted = await inference.client.post("/v1/feedback", json=body)
    assert accepted.status_code == 202, accepted.text
    assert accepted.json()["adapter_id"] == adapter.adapter_id
    [event] = [one for one in await registry.published(v1.FeedbackRecorded) if one.generation_id == answer["id"]]
    assert (event.adapter_id, event.domain, event.rating, event.comment, event.by) == (
        adapter.adapter_id,
        domain,
        4,
        "nearly",
        "admin",
    )
    forged = await inference.client.post("/v1/feedback", json={**body, "generation_id": answer["id"][:-6] + "AAAAAA"})
    assert forged.status_code == 404
    headers = {"Authorization": f"Bearer {mint(['feedback'], ['elsewhere'])}"}
    stranger = await inference.client.post("/v1/feedback", json=body, headers=headers)
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "generation_not_found")


async def test_feedback_on_a_wrong_route_names_an_active_family_that_the_caller_reaches(
    inference: Any, registry: Any, make_adapter: Any, domain: str, mint: Any
) -> None:
    theirs, foreign = f"{domain}y", f"{domain}z"
    for seed, of in enumerate((theirs, foreign), 3):
        adapter = await registry.describe(make_adapter(seed=seed), of)
        await registry.activate(adapter)
    answer = await answered(inference.client, f"{theirs}-lora-v1.0.0")
    body = {"generation_id": answer["id"], "routed_wrongly": True}
    headers = {"Authorization": f"Bearer {mint(['feedback'], [theirs])}"}

    async def status(**fields: object) -> tuple[int, str | None, str]:
        given = await inference.client.post("/v1/feedback", json={**body, **fields}, headers=headers)
        error = given.json().get("error", {})
        return given.status_code, error.get("param"), error.get("message", "")

    _, _, unknown = missing = await status(right_family="nobody-lora")
    assert missing[:2] == (404, "right_family")
    beyond = await status(right_family=f"{foreign}-lora")
    assert beyond == (404, "right_family", unknown.replace("nobody-lora", f"{foreign}-lora"))
    assert (await status(routed_wrongly=False, rating=1, right_family=f"{theirs}-lora"))[1] == "right_family"
    assert (await status(right_family=f"{theirs}-lora"))[0] == 202
    assert (await status())[0] == 202
    events = [one for one in await registry.published(v1.FeedbackRecorded) if one.generation_id == answer["id"]]
    assert [(one.routed_wrongly, one.right_family) for one in events] == [(True, f"{theirs}-lora"), (True, "")]
