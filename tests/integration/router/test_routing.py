"""The router on real NATS and PostgreSQL with pgvector, its embedding model the real one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from nats.js import JetStreamContext

from fleet_events import Event
from fleet_events.v1 import Adapter, AdapterActivated, AdapterDeactivated, Artifact, BaseModel, Blob
from fleet_kit.cloudevents import seal

Publish = Callable[[Event, str], Awaitable[None]]

BANKING = (
    "how much money is in my savings account",
    "transfer 50 dollars to my checking account",
    "please pay my water bill",
    "report that somebody used my card without asking",
)
COOKING = (
    "how long do I boil an egg",
    "what can I use in place of butter in a cake",
    "suggest a recipe with chicken and rice",
    "is this milk still good after a week",
)


def adapter(domain: str, prompts: tuple[str, ...], version: str = "1.0.0", description: str = "") -> Adapter:
    digest = "a" * 64
    return Adapter(
        adapter_id=f"{domain}-lora-v{version}",
        family=f"{domain}-lora",
        domain=domain,
        method="lora",
        version=version,
        base_model=BaseModel(name="tiny", revision="b" * 64),
        artifact=Artifact(blob=Blob(uri=f"s3://lorafleet/trainer/artifacts/{digest}", sha256=digest), rank=4, alpha=8),
        description=description,
        example_prompts=prompts,
    )


def deactivated(one: Adapter, revision: int) -> AdapterDeactivated:
    return AdapterDeactivated(adapter_id=one.adapter_id, family=one.family, domain=one.domain, revision=revision)


@pytest.fixture(scope="module")
async def router(run_service: Any) -> AsyncIterator[Any]:
    async with run_service("router") as running:
        yield running


@pytest.fixture
def publish(jetstream: JetStreamContext) -> Publish:
    async def publish(event: Event, entity: str) -> None:
        out = seal(event, service="registry", entity=entity, trace={})
        await jetstream.publish(out.subject, out.body, headers=out.headers)

    return publish


async def route(client: httpx.AsyncClient, query: str, **fields: object) -> list[dict[str, Any]]:
    answer = await client.post("/v1/route", json={"query": query, **fields})
    assert answer.status_code == 200, answer.text
    matches: list[dict[str, Any]] = answer.json()["matches"]
    return matches


async def routes(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/routes")
    assert answer.status_code == 200, answer.text
    return {one["adapter_id"]: one for one in answer.json()["routes"]}


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
async def indexed(router: Any, servers: Any) -> Any:
    client = await servers.connect_nats("admin")
    try:
        js = client.jetstream()
        for domain, prompts in (("banking", BANKING), ("cooking", COOKING)):
            event = AdapterActivated(adapter=adapter(domain, prompts, description=f"questions on {domain}"), revision=3)
            out = seal(event, service="registry", entity=domain, trace={})
            await js.publish(out.subject, out.body, headers=out.headers)
    finally:
        await client.close()

    async def both() -> bool:
        return {"banking-lora-v1.0.0", "cooking-lora-v1.0.0"} <= set(await routes(router.client))

    await eventually(both)
    return router


@pytest.mark.requirement("LI-4.2")
@pytest.mark.requirement("LI-4.3")
async def test_an_activated_adapter_is_found_by_what_it_is_for(indexed: Any) -> None:
    [match] = await route(indexed.client, "what is the balance of my account")
    assert match["adapter_id"] == "banking-lora-v1.0.0"
    assert match["domain"] == "banking"
    assert match["family"] == "banking-lora"
    [match] = await route(indexed.client, "which recipe can I make with chicken")
    assert match["adapter_id"] == "cooking-lora-v1.0.0"


@pytest.mark.requirement("LI-4.5")
async def test_a_query_that_is_near_to_nothing_matches_nothing(indexed: Any) -> None:
    assert await route(indexed.client, "who won the chess championship in 1927") == []


@pytest.mark.requirement("LI-4.4")
async def test_matches_are_ordered_by_similarity_and_limited_to_k(indexed: Any) -> None:
    matches = await route(indexed.client, "boil an egg for how long", k=5, threshold=-1)
    assert [one["domain"] for one in matches] == ["cooking", "banking"]
    assert matches[0]["score"] > matches[1]["score"]
    assert len(await route(indexed.client, "boil an egg for how long", k=1, threshold=-1)) == 1


async def test_a_prompt_of_the_adapter_itself_has_similarity_one(indexed: Any) -> None:
    [match] = await route(indexed.client, BANKING[2])
    assert match["score"] == pytest.approx(1, abs=1e-4)


LETTER = "The committee met on Thursday, and the minutes of its last session were read aloud by the secretary. " * 40
"""Some 800 tokens, of which the embedding model reads 256 at a time."""


async def test_a_question_is_routed_after_any_text_before_it(indexed: Any) -> None:
    [alone] = await route(indexed.client, "what is the balance of my account")
    [behind] = await route(indexed.client, LETTER + "what is the balance of my account")
    assert behind["adapter_id"] == alone["adapter_id"]
    assert behind["score"] == pytest.approx(alone["score"], abs=1e-4)
    assert await route(indexed.client, LETTER + "who won the chess championship in 1927") == []
    assert await route(indexed.client, LETTER) == []


async def test_the_last_turn_weighs_most_and_those_before_it_count_less(indexed: Any) -> None:
    banking, cooking = BANKING[2], COOKING[0]
    [match, *_] = await route(indexed.client, cooking, earlier=[banking], k=2)
    assert match["domain"] == "cooking"
    [match] = await route(indexed.client, "and until when", earlier=["who won the chess championship", banking])
    assert match["domain"] == "banking"
    assert match["score"] == pytest.approx(0.7, abs=1e-3)
    refused = await indexed.client.post("/v1/route", json={"query": "x", "earlier": ["y"] * 17})
    assert refused.json()["field"] == "earlier"


async def test_a_caller_gets_matches_of_its_own_domains_only(indexed: Any, mint: Any) -> None:
    headers = {"Authorization": f"Bearer {mint(['generate'], ['cooking'])}"}
    async with httpx.AsyncClient(base_url=indexed.url, headers=headers) as client:
        matches = await route(client, "what is the balance of my account", k=5, threshold=-1)
        assert {one["domain"] for one in matches} == {"cooking"}
        refused = await client.post("/v1/route", json={"query": "x", "domains": ["banking"]})
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "threshold": 3}, "threshold"),
        ({"query": "x", "domains": ["*"]}, "domains"),
        ({"query": "x", "nearest": 1}, "nearest"),
    ],
)
async def test_bad_input_is_refused_by_field(indexed: Any, body: dict[str, object], field: str) -> None:
    answer = await indexed.client.post("/v1/route", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


async def test_without_a_token_nothing_is_routed(indexed: Any) -> None:
    async with httpx.AsyncClient(base_url=indexed.url) as client:
        assert (await client.post("/v1/route", json={"query": "x"})).status_code == 401


async def test_a_deactivated_adapter_is_routed_to_no_more_even_if_its_activation_comes_again(
    indexed: Any, publish: Publish
) -> None:
    gone = adapter("gardening", ("when do I plant tomatoes", "how often do roses need water"))
    await publish(AdapterActivated(adapter=gone, revision=1), gone.adapter_id)

    async def there() -> bool:
        return bool(await route(indexed.client, "when do I plant tomatoes"))

    async def away() -> bool:
        return not await route(indexed.client, "when do I plant tomatoes")

    await eventually(there)
    await publish(deactivated(gone, 2), gone.adapter_id)
    await eventually(away)
    # Days late, under a new event id, so that the inbox cannot know it.
    await publish(AdapterActivated(adapter=gone, revision=1), gone.adapter_id)
    last = adapter("marker", ("a marker that comes after it",))
    await publish(AdapterActivated(adapter=last, revision=1), last.adapter_id)

    async def marker() -> bool:
        return last.adapter_id in await routes(indexed.client)

    await eventually(marker)
    assert await away()


async def test_a_new_version_takes_its_familys_place_before_the_old_one_is_deactivated(
    indexed: Any, publish: Publish
) -> None:
    prompts = ("tune a violin string", "which bow for a cello")
    for version, revision in (("1.0.0", 1), ("1.1.0", 2)):
        one = adapter("music", prompts, version)
        await publish(AdapterActivated(adapter=one, revision=revision), one.adapter_id)

    async def switched() -> bool:
        return [one["adapter_id"] for one in await route(indexed.client, prompts[0], k=5)] == ["music-lora-v1.1.0"]

    await eventually(switched)
    assert "music-lora-v1.0.0" not in await routes(indexed.client)


async def test_a_rebuild_from_the_stream_restores_a_destroyed_index(indexed: Any) -> None:
    before = await routes(indexed.client)
    connection = await asyncpg.connect(indexed.env["LORAFLEET_DATABASE_URL"])
    try:
        await connection.execute("DELETE FROM router.route")
        await connection.execute(
            "INSERT INTO router.route (adapter_id, family, domain, activated) VALUES ('ghost', 'ghost', 'ghost', 1)"
        )
    finally:
        await connection.close()

    async def destroyed() -> bool:
        return await route(indexed.client, BANKING[0]) == []

    async def restored() -> bool:
        return await routes(indexed.client) == before

    await eventually(destroyed)
    answer = await indexed.client.post("/admin/rebuild")
    assert answer.status_code == 200, answer.text
    assert answer.json()["routes"] >= len(before)
    await eventually(restored)
    assert (await route(indexed.client, BANKING[0]))[0]["adapter_id"] == "banking-lora-v1.0.0"


async def test_only_an_administrator_rebuilds(indexed: Any, mint: Any) -> None:
    headers = {"Authorization": f"Bearer {mint(['generate', 'adapters:read'])}"}
    async with httpx.AsyncClient(base_url=indexed.url, headers=headers) as client:
        assert (await client.post("/admin/rebuild")).status_code == 403


async def test_a_killed_router_comes_back_with_its_index_and_what_happened_meanwhile(
    indexed: Any, publish: Publish
) -> None:
    before = await routes(indexed.client)
    await indexed.crash()
    late = adapter("sailing", ("how do I reef the mainsail", "tie a bowline"))
    await publish(AdapterActivated(adapter=late, revision=1), late.adapter_id)
    await indexed.start()

    async def published() -> bool:
        return late.adapter_id in await routes(indexed.client)

    await eventually(published)
    assert before.items() <= (await routes(indexed.client)).items()


async def test_what_has_no_vectors_of_the_embedding_model_gets_them_before_it_routes(indexed: Any) -> None:
    connection = await asyncpg.connect(indexed.env["LORAFLEET_DATABASE_URL"])
    try:
        await indexed.stop()
        # As if a model of another size had made them.
        await connection.execute(
            "UPDATE router.route_vectors SET embedded_by = 'another@0', dimension = 1 WHERE adapter_id LIKE 'banking%'"
        )
        await indexed.start()
    finally:
        await connection.close()
    [match] = await route(indexed.client, BANKING[0])
    assert match["adapter_id"] == "banking-lora-v1.0.0"
