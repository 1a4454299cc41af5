"""`GET /v1/answers/{generation_id}/provenance`: an answer is followed back to all training data behind it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_events import v1
from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry.conftest import Get, Upstream, eventually
from tests.integration.registry.test_loop import registered
from tests.integration.registry.uploads import upload

pytestmark = pytest.mark.integration


def answer(upstream: Upstream, *adapters: dict[str, Any], weights: tuple[float, ...] = ()) -> v1.GenerationCompleted:
    """What inference publishes of an answer by these adapters; of several as a set, the heaviest first."""
    first = adapters[0] if adapters else {"adapter_id": "", "domain": "", "artifact_sha256": ""}
    return v1.GenerationCompleted(
        generation_id=f"gen-{secrets.token_hex(8)}",
        requested_model="auto",
        adapter_id=first["adapter_id"],
        domain=first["domain"],
        artifact_sha256=first["artifact_sha256"],
        base_model=upstream.base_name,
        base_model_revision=upstream.revision,
        finish_reason="stop",
        caller="anna",
        mix=tuple(
            v1.WeightedAdapter(adapter_id=one["adapter_id"], artifact_sha256=one["artifact_sha256"], weight=weight)
            for one, weight in zip(adapters, weights, strict=True)
        )
        if weights
        else (),
    )


async def followed(client: httpx.AsyncClient, generation_id: str, **headers: Any) -> Any:
    """The answer's provenance once the registry knows of it."""

    async def found() -> Any:
        reply = await client.get(f"/v1/answers/{generation_id}/provenance", **headers)
        assert reply.status_code in (200, 404), reply.text
        return reply.json() if reply.status_code == 200 else None

    return await eventually(found)


@pytest.mark.requirement("AM-1.2")
async def test_an_answer_is_followed_to_the_data_of_its_version_and_of_those_that_its_training_continued(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    first = await upstream.trained(domain)
    await upstream.publish(first)
    (oldest,) = await eventually(lambda: adapters(domain))
    second = await registered(upstream, adapters, domain, seed=2, continued_from=oldest["adapter_id"])
    job = (await registry.client.get(f"/v1/adapters/{second['adapter_id']}")).json()["training"]["job_id"]
    third = await registered(upstream, adapters, domain, seed=3, continued_from=job)
    event = answer(upstream, third)
    await upstream.publish(event)
    found = await followed(registry.client, event.generation_id)
    (adapter,) = found["adapters"]
    assert (adapter["adapter_id"], adapter["weight"], adapter["unknown"]) == (third["adapter_id"], 1.0, [])
    assert adapter["artifact_sha256"] == third["artifact_sha256"] == adapter["chain"][0]["artifact"]["sha256"]
    ids = [one["adapter_id"] for one in (third, second, oldest)]
    assert [link["adapter_id"] for link in adapter["chain"]] == ids
    assert {link["dataset"]["sha256"] for link in adapter["chain"]} == {first.dataset.blob.sha256}
    assert found["base_model"] == {"name": upstream.base_name, "revision": upstream.revision}
    assert found["requested_model"] == "auto"


async def test_a_training_that_continues_what_is_not_registered_says_so(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    event = answer(upstream, await registered(upstream, adapters, domain, continued_from="job-elsewhere"))
    await upstream.publish(event)
    (adapter,) = (await followed(registry.client, event.generation_id))["adapters"]
    assert len(adapter["chain"]) == 1
    (unknown,) = adapter["unknown"]
    assert "continues job-elsewhere" in unknown


async def test_a_weighted_set_names_every_adapter_and_an_upload_what_is_unknown_of_it(
    registry: RunningService,
    upstream: Upstream,
    adapters: Get,
    peft: Path,
    domain: str,
) -> None:
    trained = await registered(upstream, adapters, domain)
    uploaded = (await upload(registry.client, peft, domain=domain)).json()
    event = answer(upstream, trained, uploaded, weights=(0.7, 0.3))
    await upstream.publish(event)
    found = (await followed(registry.client, event.generation_id))["adapters"]
    assert [(one["adapter_id"], one["weight"]) for one in found] == [
        (trained["adapter_id"], 0.7),
        (uploaded["adapter_id"], 0.3),
    ]
    assert [bool(one["chain"][0]["dataset"]) for one in found] == [True, False]
    assert found[0]["unknown"] == []
    (unknown,) = found[1]["unknown"]
    assert "was uploaded by admin" in unknown
    assert "with what data and configuration it was trained is unknown" in unknown


async def test_an_answer_of_the_base_model_states_that_its_data_is_unknown_to_its_caller_alone(
    registry: RunningService, upstream: Upstream, domain: str, mint: Mint
) -> None:
    event = answer(upstream)
    await upstream.publish(event)
    found = await followed(registry.client, event.generation_id)  # an admin of every domain
    assert found["adapters"] == []
    assert upstream.base_name in found["unknown"][0]
    path = f"/v1/answers/{event.generation_id}/provenance"
    for subject, status in (("anna", 200), ("ben", 404)):
        headers = {"Authorization": f"Bearer {mint(['adapters:read'], [domain], subject=subject)}"}
        assert (await registry.client.get(path, headers=headers)).status_code == status, subject


async def test_an_answer_of_domains_that_the_caller_does_not_all_reach_reads_like_none(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, mint: Mint
) -> None:
    other = f"{domain}-b"
    own, foreign = [await registered(upstream, adapters, name) for name in (domain, other)]
    alone, mixed = answer(upstream, foreign), answer(upstream, own, foreign, weights=(0.8, 0.2))
    for event in (alone, mixed):
        await upstream.publish(event)
        await followed(registry.client, event.generation_id)
    token = mint(["adapters:read"], [domain], subject="anna")  # not even the caller itself, once its domains are fewer
    async with httpx.AsyncClient(base_url=registry.url, headers={"Authorization": f"Bearer {token}"}) as client:
        absent = await client.get("/v1/answers/gen-none/provenance")
        for event in (alone, mixed):
            reply = await client.get(f"/v1/answers/{event.generation_id}/provenance")
            assert reply.status_code == 404
            assert reply.text.replace(event.generation_id, "gen-none") == absent.text
    both = {"Authorization": f"Bearer {mint(['adapters:read'], [domain, other])}"}
    assert len((await followed(registry.client, mixed.generation_id, headers=both))["adapters"]) == 2
    other_scope = {"Authorization": f"Bearer {mint(['generate'], [domain, other])}"}
    path = f"/v1/answers/{mixed.generation_id}/provenance"
    assert (await registry.client.get(path, headers=other_scope)).status_code == 403


async def test_a_set_with_an_adapter_of_other_bytes_than_those_registered_is_refused(
    upstream: Upstream, adapters: Get, domain: str, registry: RunningService
) -> None:
    first, second = [await registered(upstream, adapters, domain, seed=seed) for seed in (1, 2)]
    event = answer(upstream, first, second | {"artifact_sha256": "0" * 64}, weights=(0.5, 0.5))
    await upstream.publish(event)

    async def refused() -> bool:
        return any(event.generation_id in reason for reason in await upstream.dead_reasons())

    await eventually(refused)
    assert (await registry.client.get(f"/v1/answers/{event.generation_id}/provenance")).status_code == 404


async def test_answers_are_kept_for_the_days_that_are_set(
    registry: RunningService, run_service: RunService, upstream: Upstream, base_model: Path
) -> None:
    old, new = answer(upstream), answer(upstream)
    await upstream.publish(old, at=datetime.now(UTC) - timedelta(days=2))
    await upstream.publish(new)
    for event in (old, new):
        await followed(registry.client, event.generation_id)
    changes = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_ANSWERS_KEPT_DAYS": "1"}
    async with run_service("registry", **changes):

        async def forgotten() -> bool:
            reply = await registry.client.get(f"/v1/answers/{old.generation_id}/provenance")
            return reply.status_code == 404

        await eventually(forgotten)
    assert (await registry.client.get(f"/v1/answers/{new.generation_id}/provenance")).status_code == 200


async def test_what_callers_took_is_counted_by_month_and_shown_to_those_who_reach_the_domain(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, mint: Mint
) -> None:
    version = await registered(upstream, adapters, domain)
    caller = f"caller-{secrets.token_hex(4)}"
    counted = {"prompt_tokens": 7, "completion_tokens": 5, "caller": caller}
    for one in (answer(upstream, version), answer(upstream, version), answer(upstream)):
        await upstream.publish(one.model_copy(update=counted))

    async def seen(**request: Any) -> list[tuple[str, int, int, int]]:
        reply = await registry.client.get("/v1/usage", **request)
        return [
            (one["domain"], one["answers"], one["prompt_tokens"], one["completion_tokens"])
            for one in reply.json()["usage"]
            if one["caller"] == caller
        ]

    async def counted_all() -> bool:
        return sum(answers for _, answers, *_ in await seen()) == 3

    await eventually(counted_all)
    assert await seen() == [(domain, 2, 14, 10), ("", 1, 7, 5)]
    assert (await registry.client.get("/v1/usage", params={"month": "2020-02"})).json() == {
        "month": "2020-02",
        "usage": [],
    }
    assert (await registry.client.get("/v1/usage", params={"month": "2020-13"})).status_code == 422
    assert await seen(headers=_as(mint, domain)) == [(domain, 2, 14, 10)]
    other = _as(mint, "another")
    assert await seen(headers=other) == []
    refused = await registry.client.get("/v1/usage", params={"domain": domain}, headers=other)
    assert refused.status_code == 403


def _as(mint: Mint, domain: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint(['adapters:read'], [domain])}"}
