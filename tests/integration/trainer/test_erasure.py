"""A person is forgotten: rows, messages, dead letters and data sets of trainer and registry, on the real servers."""

from __future__ import annotations

import json
import secrets
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_events import Event, v1
from fleet_kit.blobs import Blobs
from fleet_kit.dead_letters import list_dead
from fleet_kit.errors import BlobMissing
from fleet_kit.settings import ServiceSettings
from tests.conftest import RunningService, ServiceEnv
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import Bench, eventually
from tests.integration.trainer.erasing import about, build, erased, forget, person, recorded, traces
from tests.integration.trainer.erasing import registry as registry
from tests.integration.trainer.erasing import registry_rows as registry_rows
from tests.integration.trainer.erasing import router as router
from tests.integration.trainer.erasing import rows as rows

pytestmark = pytest.mark.integration


async def test_a_person_is_erased_from_rows_streams_dead_letters_and_data_sets_and_the_proof_names_nobody(
    bench: Bench,
    registry: RunningService,
    rows: asyncpg.Connection,
    registry_rows: asyncpg.Connection,
    jetstream: JetStreamContext,
) -> None:
    name, other = person(), person()
    for number in range(3):
        await bench.upstream.publish(about(bench.domain, name, number))
    await bench.upstream.publish(about(bench.domain, other, 0))
    line = {"domain": bench.domain, "prompt": f"Who is {name}?", "completion": "A customer.", "subject": name}
    assert (await bench.record([line]))["added"] == 1
    pair = {"prompt": f"Greet {name}", "chosen": f"Hello {name}", "rejected": "Hey"}
    await bench.upstream.publish(v1.PreferenceRecorded(domain=bench.domain, subject=name, **pair))
    generation = f"gen-{secrets.token_hex(6)}"
    rating = {"domain": bench.domain, "rating": 1, "comment": f"wrong, says {name}"}
    await bench.upstream.publish(v1.FeedbackRecorded(generation_id=generation, by="x", subject=name, **rating))
    poison = {"domain": "Not A Domain", "prompt": "p", "completion": f"{name}", "subject": name}
    headers = {"ce-id": secrets.token_hex(4), "ce-type": "lorafleet.events.v1.SampleRecorded"}
    headers |= {"content-type": "application/json", "ce-source": "test", "Nats-Msg-Id": secrets.token_hex(8)}
    await jetstream.publish("lorafleet.v1.data.sample_recorded", json.dumps(poison).encode(), headers=headers)
    await recorded(rows, bench.domain, 5)

    async def rated() -> bool:
        return bool(await registry_rows.fetchval("select true from feedback where generation_id = $1", generation))

    await eventually(rated)

    async def dead() -> bool:
        return any(name.encode() in one.body for one in [one async for one in list_dead(jetstream)])

    await eventually(dead)
    held = await build(bench, "with-people")
    assert (await traces(bench, name, rows, registry_rows)) != []

    asked = await forget(bench, name)
    done = await erased(bench, asked["erasure_id"])
    assert await traces(bench, name, rows, registry_rows) == []
    counts = {kind: one["count"] for kind, one in done["deleted"].items()}
    assert counts == {
        "samples": 4, "preferences": 1, "feedback": 1, "datasets": 1, "messages": 5, "dead_letters": 1,
        "rankings": 0, "answers": 0, "answer_texts": 0, "uploads": 0,
    }  # fmt: skip
    assert done["datasets"] == [held["dataset_id"]]
    assert {one["service"]: one["state"] for one in done["services"]} == dict.fromkeys(
        ("trainer", "registry", "router"), "erased"
    )
    with pytest.raises(BlobMissing):
        await bench.blobs.get(v1.Blob.model_validate(held["blob"]))
    with pytest.raises(BlobMissing):
        await bench.blobs.get(v1.Blob.model_validate(held["card"]))
    for part in ("records", "card"):
        reply = await bench.trainer.client.get(f"/v1/datasets/{held['dataset_id']}/{part}")
        assert (reply.status_code, f"erased: {asked['erasure_id']}" in reply.text) == (410, True)
    # Nothing else went: the other person's sample and message are there, and make a new version.
    assert await rows.fetchval("select count(*) from samples where domain = $1", bench.domain) == 1
    assert (await build(bench, "with-people"))["samples"] == 1
    again = await forget(bench, name)
    assert (again["erasure_id"], again["state"]) == (asked["erasure_id"], "erased")


async def test_recorded_answers_and_the_records_that_feedback_made_of_them_are_erased_with_their_messages(
    bench: Bench,
    registry: RunningService,
    router: RunningService,
    rows: asyncpg.Connection,
    registry_rows: asyncpg.Connection,
) -> None:
    name, generation = person(), f"gen-{secrets.token_hex(6)}"
    answer = v1.GenerationRecorded(
        generation_id=generation,
        domain=bench.domain,
        base_model=v1.BaseModel(name="tiny-llama", revision="0" * 64),
        sampling=v1.Sampling(temperature=0, top_p=1),
        messages=(v1.Turn(role="user", content=f"Where does {name} live?"),),
        answer=f"{name} lives here.",
        finish_reason="stop",
        routed="nearest",
        consent=v1.Consent(record_answers="all", personal_data="mask", revision=1),
        subject=name,
        caller="app",
    )
    await bench.upstream.publish(answer)
    await eventually(lambda: routed_answers(router, generation))
    rating = {"rating": 5, "domain": bench.domain, "correction": f"{name} lives there."}
    await bench.upstream.publish(v1.FeedbackRecorded(generation_id=generation, by="somebody else", **rating))
    await recorded(rows, bench.domain, 1)
    held = await build(bench, "of-answers")
    await router.crash()
    asked = await forget(bench, name)

    async def waits() -> Any:
        found = (await bench.trainer.client.get(f"/v1/erasures/{asked['erasure_id']}")).json()
        states = {one["service"]: one["state"] for one in found["services"]}
        return found if states == {"trainer": "erased", "registry": "erased", "router": "requested"} else None

    assert (await eventually(waits))["state"] == "erasing"
    await router.start()
    done = await erased(bench, asked["erasure_id"])
    deleted = {one["service"]: one["deleted"] for one in done["services"]}
    assert deleted["router"] == 2, "the answer and the vector of its query"
    assert not await routed_answers(router, generation)
    assert done["deleted"]["answers"]["count"] == 1
    assert done["datasets"] == [held["dataset_id"]]
    assert await rows.fetchval("select count(*) from samples where domain = $1", bench.domain) == 0
    # The message of the other person's feedback quotes the answer; that one named nobody.
    left = await traces(bench, name, rows, registry_rows)
    assert [one.split()[2] for one in left] == ["lorafleet.v1.data.feedback_recorded"]
    await bench.upstream.publish(answer)

    async def late() -> bool:
        found = (await bench.trainer.client.get(f"/v1/erasures/{asked['erasure_id']}")).json()
        return bool(found["late"]) and len(await traces(bench, name, rows, registry_rows)) == 1

    await eventually(late)


async def routed_answers(router: RunningService, generation: str) -> int:
    """What the router keeps of an answer beside that it is forgotten."""
    connection = await asyncpg.connect(
        router.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "router,public"}
    )
    query = (
        "select count(*) from routed_answer join routed_answer_vector using (generation_id) where generation_id = $1"
    )
    try:
        return int(await connection.fetchval(query, generation))
    finally:
        await connection.close()


async def test_large_texts_of_answers_are_erased_from_the_object_store_those_that_arrive_late_included(
    bench: Bench, registry: RunningService, rows: asyncpg.Connection, service_env: ServiceEnv
) -> None:
    values = {name.removeprefix("LORAFLEET_").lower(): one for name, one in service_env("inference").items()}
    settings = ServiceSettings(**{name: one for name, one in values.items() if name in ServiceSettings.model_fields})
    inference = Blobs("inference", settings)

    async def recorded_answer(subject: str) -> v1.Blob:
        generation = f"gen-{secrets.token_hex(6)}"
        turns = [{"role": "user", "content": f"Where does {subject} live?"}]
        texts = {"generation_id": generation, "messages": turns, "answer": f"{subject} lives here."}
        content = await inference.put("answers", json.dumps(texts).encode())
        event = v1.GenerationRecorded(
            generation_id=generation,
            domain=bench.domain,
            base_model=v1.BaseModel(name="tiny-llama", revision="0" * 64),
            sampling=v1.Sampling(temperature=0, top_p=1),
            content=content,
            finish_reason="stop",
            consent=v1.Consent(record_answers="all", personal_data="mask", revision=1),
            subject=subject,
            caller="app",
        )
        await bench.upstream.publish(event)
        return content

    async def gone(content: v1.Blob) -> bool:
        try:
            await inference.get(content)
        except BlobMissing:
            return True
        return False

    name, other = person(), person()
    first, others = await recorded_answer(name), await recorded_answer(other)

    async def kept() -> bool:
        return bool(await rows.fetchval("select count(*) from answers where domain = $1", bench.domain) == 2)

    await eventually(kept)
    done = await erased(bench, (await forget(bench, name))["erasure_id"])
    assert done["deleted"]["answer_texts"]["count"] == 1
    assert (await gone(first), await gone(others)) == (True, False)
    late = await recorded_answer(name)
    await eventually(lambda: gone(late))


async def test_an_uploaded_file_is_written_again_without_the_person_and_keeps_its_id_for_recipes(
    bench: Bench, registry: RunningService, rows: asyncpg.Connection
) -> None:
    name, other = person(), person()
    lines = [
        {"prompt": f"Where does {one} live, {number}?", "completion": f"{one} lives at {number}.", "customer": one}
        for one in (name, other)
        for number in range(2)
    ]
    source = {**await upload(bench, "people.jsonl", as_jsonl(lines)), "columns": {"subject": "customer"}}
    held, _ = await built(bench, source)

    async def file_of(upload_id: str) -> v1.Blob:
        query = "select uri, coalesce(sha256, upload_id) as sha256, bytes from uploads where upload_id = $1"
        row = await rows.fetchrow(query, upload_id)
        assert row is not None
        return v1.Blob.model_validate(dict(row))

    before = await file_of(source["upload_id"])
    done = await erased(bench, (await forget(bench, name))["erasure_id"])
    assert done["deleted"]["uploads"]["rewritten"] == [source["upload_id"]]
    assert done["datasets"] == [held]
    with pytest.raises(BlobMissing):
        await bench.blobs.get(before)
    left = await file_of(source["upload_id"])
    assert await bench.blobs.get(left) == as_jsonl(lines[2:])
    again, records = await built(bench, source)
    assert (again != held, len(records)) == (True, 2)
    # The same bytes again are the same upload, which stays as it is.
    assert (await upload(bench, "people.jsonl", as_jsonl(lines)))["upload_id"] == source["upload_id"]
    assert (await built(bench, source))[0] == again
    # Of a file that comes later nothing is built of the person, and the next sweep writes it again.
    late = {**await upload(bench, "late.jsonl", as_jsonl(lines[1:])), "columns": {"subject": "customer"}}
    assert (await built(bench, late))[0] == again
    await bench.trainer.crash()
    await bench.trainer.start()

    async def cleaned() -> bool:
        found = await rows.fetchval("select erased_by from uploads where upload_id = $1", late["upload_id"])
        return bool(found == [done["erasure_id"]])

    await eventually(cleaned)


async def test_what_arrives_of_a_forgotten_person_is_refused_and_deleted_from_the_stream(
    bench: Bench, registry: RunningService, rows: asyncpg.Connection, registry_rows: asyncpg.Connection
) -> None:
    name = person()
    old = about(bench.domain, name, 0)
    await bench.upstream.publish(old)
    await recorded(rows, bench.domain, 1)
    asked = await forget(bench, name)
    await erased(bench, asked["erasure_id"])
    events: list[Event] = [
        old,
        v1.FeedbackRecorded(generation_id=f"gen-{secrets.token_hex(6)}", rating=2, by="x", subject=name,
                            domain=bench.domain, comment=name),
    ]  # fmt: skip
    for event in events:
        await bench.upstream.publish(event)
    line = {"domain": bench.domain, "prompt": f"Who is {name}?", "completion": "Nobody.", "subject": name}
    assert await bench.record([line]) == {"received": 1, "added": 0, "duplicates": 0, "forgotten": 1}

    async def clean() -> bool:
        return not await traces(bench, name, rows, registry_rows)

    async def late() -> bool:
        found = (await bench.trainer.client.get(f"/v1/erasures/{asked['erasure_id']}")).json()
        return bool(found["late"] >= 3)

    await eventually(late)
    await eventually(clean)
    assert await rows.fetchval("select count(*) from samples where domain = $1", bench.domain) == 0
    # The same person in another domain, which was not named, is recorded as before.
    elsewhere = f"{bench.domain}-b"
    await bench.upstream.publish(about(elsewhere, name, 1))
    await recorded(rows, elsewhere, 1)
