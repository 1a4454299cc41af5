"""Feedback that an answer was routed wrongly becomes a correction, and goes with the person whose answer it was."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_events import Event, v1
from fleet_events.topology import consumers_of, durable_name, row_of
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import seal
from fleet_kit.db import Connection
from fleet_kit.settings import ServiceSettings
from services.inference.recording.outgoing import texts_of, with_texts_apart
from services.router import feedback, feedback_store
from services.router.metrics import FEEDBACK, Learned
from tests.conftest import ServiceEnv
from tests.integration.router.test_routing import adapter, eventually, routes
from tests.integration.router.test_routing import router as router

pytestmark = pytest.mark.integration

WRONG, RIGHT = "sewing", "surgery"
QUERY = "how many stitches does a deep cut need"
LIKE_IT = "a deep cut needs how many stitches"


class Bus:
    """Publishes as each event's own service does, and waits until the router has handled everything."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self.jetstream = jetstream

    async def publish(self, event: Event, service: str = "inference") -> None:
        out = seal(event, service=service, entity="test", trace={})
        await self.jetstream.publish(out.subject, out.body, headers=out.headers)
        await eventually(self.handled)

    async def handled(self) -> bool:
        infos = [
            await self.jetstream.consumer_info(row.stream.name, durable_name(one, row))
            for row, one in consumers_of("router")
        ]
        return not any(info.num_pending or info.num_ack_pending for info in infos)


@pytest.fixture
async def bus(router: Any, jetstream: JetStreamContext) -> Bus:
    bus = Bus(jetstream)
    prompts = {
        WRONG: ("how many stitches do I cast on", "how do I hem a skirt", "how many stitches for a deep hem"),
        RIGHT: ("when is an appendix removed", "how long is the patient sedated"),
    }
    for domain, of in prompts.items():
        if f"{domain}-lora-v1.0.0" not in await routes(router.client):
            await bus.publish(v1.AdapterActivated(adapter=adapter(domain, of), revision=1), "registry")
    await eventually(lambda: _has(router, f"{RIGHT}-lora-v1.0.0"))
    return bus


@pytest.fixture
async def database(router: Any) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(
        router.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "router,public"}
    )
    yield connection
    await connection.close()


async def _has(router: Any, adapter_id: str) -> bool:
    return adapter_id in await routes(router.client)


def recorded(name: str, query: str = QUERY, **changes: Any) -> v1.GenerationRecorded:
    fields: dict[str, Any] = {
        "generation_id": name,
        "domain": WRONG,
        "adapter_id": f"{WRONG}-lora-v1.0.0",
        "routed": "nearest",
        "base_model": v1.BaseModel(name="tiny", revision="0" * 64),
        "sampling": v1.Sampling(),
        "messages": (v1.Turn(role="system", content="Be brief."), v1.Turn(role="user", content=query)),
        "answer": "Twelve.",
        "consent": v1.Consent(
            record_answers=v1.RecordAnswers.ALL, personal_data=v1.PersonalDataAction.MASK, revision=1
        ),
    }
    return v1.GenerationRecorded(**fields | changes)


def wrong(name: str, right: str = f"{RIGHT}-lora") -> v1.FeedbackRecorded:
    return v1.FeedbackRecorded(generation_id=name, domain=WRONG, by="ann", routed_wrongly=True, right_family=right)


def forgotten(*names: str) -> v1.SubjectForgotten:
    return v1.SubjectForgotten(
        erasure_id=f"erasure-{names[0]}", domain="*", subject_digest="0" * 64, generation_ids=names, part=1, by="ann"
    )


async def rows_deleted(bus: Bus, erasure_id: str) -> int:
    """What the router counts in its answer to an erasure."""
    found: list[v1.SubjectErased] = []

    async def answered() -> bool:
        row = row_of(v1.SubjectErased)
        last = await bus.jetstream.get_last_msg(row.stream.name, row.subject)
        found.append(v1.SubjectErased.from_json(last.data or b""))
        return found[-1].erasure_id == erasure_id

    await eventually(answered)
    assert (found[-1].service, found[-1].part) == ("router", 1)
    return found[-1].deleted


async def first(router: Any, query: str) -> str | None:
    found = (await router.client.post("/v1/route", json={"query": query, "margin": 0})).json()["matches"]
    return found[0]["family"] if found else None


async def corrections(router: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await router.client.get("/v1/corrections")).json()["corrections"]
    return found


async def leads_to(router: Any, query: str, family: str | None) -> None:
    async def there() -> bool:
        return await first(router, query) == family

    await eventually(there)


@pytest.mark.requirement("LI-4.2")
@pytest.mark.parametrize("answer_first", [True, False])
async def test_feedback_on_a_routed_answer_reroutes_queries_like_it_until_its_person_is_forgotten(
    router: Any, bus: Bus, database: Connection, answer_first: bool
) -> None:
    name = f"gen-{answer_first}"
    await leads_to(router, LIKE_IT, f"{WRONG}-lora")
    events = [recorded(name), wrong(name)]
    for event in events if answer_first else reversed(events):
        await bus.publish(event)
    await leads_to(router, LIKE_IT, f"{RIGHT}-lora")
    [kept] = await corrections(router)
    assert (kept["query"], kept["generation_id"], kept["domain"], kept["taught_by"]) == ("", name, RIGHT, "ann")
    await bus.publish(forgotten(name), "trainer")
    await leads_to(router, LIKE_IT, f"{WRONG}-lora")
    assert await corrections(router) == []
    assert await rows_deleted(bus, f"erasure-{name}") == 3  # the answer with its feedback, its vector, the correction
    assert not await database.fetch("SELECT FROM routed_answer_vector WHERE generation_id = $1", name)
    # What arrives later, under another event id, is not taken either.
    for event in events:
        await bus.publish(event)
    assert await corrections(router) == []
    assert not await database.fetch("SELECT FROM routed_answer_vector WHERE generation_id = $1", name)


async def test_an_answer_whose_texts_are_too_large_for_the_bus_teaches_too(
    router: Any, bus: Bus, service_env: ServiceEnv
) -> None:
    """Another one's texts are gone by the time that it comes."""
    env = {name.removeprefix("LORAFLEET_").lower(): value for name, value in service_env("inference").items()}
    blobs = Blobs("inference", ServiceSettings.model_validate(env))
    whole = recorded("gen-large", answer="Twelve. " * 40_000)
    content = await blobs.put("answers", texts_of(whole))
    lost = with_texts_apart(recorded("gen-gone"), content.model_copy(update={"uri": content.uri + "0"}))
    await bus.publish(lost)
    await bus.publish(wrong("gen-gone"))
    assert await corrections(router) == []
    await bus.publish(with_texts_apart(whole, content))
    await bus.publish(wrong("gen-large"))
    await leads_to(router, LIKE_IT, f"{RIGHT}-lora")
    assert [one["generation_id"] for one in await corrections(router)] == ["gen-large"]
    await bus.publish(forgotten("gen-large", "gen-gone"), "trainer")


async def test_without_a_family_no_adapter_answers_and_newer_feedback_replaces_it(router: Any, bus: Bus) -> None:
    await bus.publish(recorded("gen-none"))
    await bus.publish(wrong("gen-none", right=""))
    await leads_to(router, QUERY, None)
    await bus.publish(wrong("gen-none"))
    await leads_to(router, QUERY, f"{RIGHT}-lora")
    assert [(one["domain"], one["family"]) for one in await corrections(router)] == [(RIGHT, f"{RIGHT}-lora")]
    await bus.publish(forgotten("gen-none"), "trainer")


async def test_feedback_on_what_auto_did_not_route_or_for_no_live_family_teaches_nothing(
    router: Any, bus: Bus, database: Connection
) -> None:
    await bus.publish(recorded("gen-base", adapter_id="", routed="", fallback="adapter_not_active"))
    await bus.publish(wrong("gen-base"))
    await bus.publish(wrong("gen-unrecorded"))
    await bus.publish(recorded("gen-lost"))
    await bus.publish(wrong("gen-lost", right="nobody-lora"))
    assert await corrections(router) == []
    assert await first(router, QUERY) == f"{WRONG}-lora"
    counted = (await router.client.get("/metrics")).text
    assert 'lorafleet_router_feedback_total{outcome="no_family"} 1.0' in counted
    waiting = await database.fetch(
        "SELECT generation_id FROM routed_answer WHERE routed_wrongly AND query_sha256 IS NULL ORDER BY generation_id"
    )
    assert [row["generation_id"] for row in waiting] == ["gen-base", "gen-unrecorded"]


async def test_what_was_taught_by_hand_stays(router: Any, bus: Bus) -> None:
    query = "which needle for a wound"
    body = {"query": query, "domain": WRONG, "family": f"{WRONG}-lora"}
    assert (await router.client.post("/v1/corrections", json=body)).status_code == 200
    await bus.publish(recorded("gen-hand", query))
    await bus.publish(wrong("gen-hand", right=""))
    [kept] = await corrections(router)
    assert (kept["query"], kept["generation_id"], kept["family"]) == (query, None, f"{WRONG}-lora")
    path = f"/v1/corrections/{WRONG}/{kept['correction_id']}"
    assert (await router.client.delete(path)).status_code == 200


async def test_answers_and_feedback_wait_for_a_time_and_the_oldest_beyond_a_number_leave(
    bus: Bus,
    database: Connection,
) -> None:
    expired = FEEDBACK.labels(Learned.EXPIRED.value)
    before = expired._value.get()
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute("DELETE FROM routed_answer")
        for age, name in enumerate(("new", "old", "older", "oldest")):
            await feedback_store.save_answer(database, name, WRONG, b"0" * 32)
            await _age(database, name, timedelta(days=age))
        await feedback_store.save_feedback(database, "alone", "", "ann")
        await _age(database, "alone", timedelta(days=9))
        await feedback_store.forget(database, ["gone"])
        await feedback.expire(database, timedelta(days=2, hours=1), most=2)
        left = await database.fetch("SELECT generation_id FROM routed_answer ORDER BY kept_at DESC, generation_id")
        assert [row["generation_id"] for row in left] == ["gone", "new", "old"]
        assert expired._value.get() == before + 1
    finally:
        await transaction.rollback()


async def _age(database: Connection, name: str, age: timedelta) -> None:
    await database.execute(
        "UPDATE routed_answer SET kept_at = now() - $2::interval WHERE generation_id = $1", name, age
    )
