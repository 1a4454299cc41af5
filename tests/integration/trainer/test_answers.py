"""Recorded answers and feedback by generation id: samples, preferences and rankings, each once, in whatever order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from fleet_events import Event, v1
from fleet_kit.blobs import Blobs
from fleet_kit.db import connect_pool
from fleet_kit.settings import ServiceSettings
from services.trainer.datasets.store import answer_feedback
from services.trainer.datasets.store.answer_feedback import NOT_RECORDED, TAKEN_BACK, TOO_MANY
from tests.integration.trainer.answering import opinion, publish_as, recorded
from tests.integration.trainer.building import built
from tests.integration.trainer.conftest import Bench, eventually

pytestmark = pytest.mark.integration


async def states(bench: Bench, count: int, **query: str) -> dict[str, tuple[str, str]]:
    """Answer and what it is better than → state and reason, once so many are listed and none waits by chance."""

    async def listed() -> Any:
        response = await bench.trainer.client.get("/v1/feedback", params={"domain": bench.domain, **query})
        assert response.status_code == 200, response.text
        found = response.json()["feedback"]
        return found if len(found) == count else None

    found = await eventually(listed)
    return {
        f"{one['generation_id']} {one['preferred_over']}".replace(f"{bench.domain}-", "").strip(): (
            one["state"],
            one["reason"],
        )
        for one in found
    }


@pytest.fixture
async def database(bench: Bench) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with connect_pool("trainer", bench.trainer.env["LORAFLEET_DATABASE_URL"], 2) as pool:
        yield pool


@pytest.mark.requirement("AM-2.3")
async def test_feedback_by_generation_id_alone_becomes_samples_preferences_and_rankings(bench: Bench) -> None:
    texts = {"a": "At dusk.", "b": "At noon.", "c": "Never."}
    for name, text in texts.items():
        await publish_as(bench, recorded(bench, name, text))
    for event in (
        opinion(bench, "a", rating=5),
        opinion(bench, "b", rating=2, correction="At dusk, from the north."),
        opinion(bench, "a", preferred_over="b"),
        opinion(bench, "b", preferred_over="c"),
    ):
        await publish_as(bench, event)
    assert set((await states(bench, 4)).values()) == {("used", "")}
    _, completions = await built(bench, {"kind": "live", "min_rating": 3}, kind="completion")
    assert {(one.completions[0], one.rating) for one in completions} == {
        ("At dusk.", 5.0),
        ("At dusk, from the north.", None),
    }
    # The whole conversation is the prompt.
    assert {tuple((turn.role, turn.content) for turn in one.prompt) for one in completions} == {
        (("system", "Be brief."), ("user", "Gate?"))
    }
    _, pairs = await built(bench, {"kind": "live"}, kind="preference")
    assert {(one.completions, one.origin) for one in pairs} == {
        (("At dusk.", "At noon."), "preferred"),
        (("At noon.", "Never."), "preferred"),
        (("At dusk, from the north.", "At noon."), "correction"),
        # The two ratings give the first pair again: filters drop what is twice.
    }
    _, rankings = await built(bench, {"kind": "live"}, kind="ranking")
    assert ("At dusk.", "At noon.", "Never.") in {one.completions for one in rankings}
    answers = (await bench.trainer.client.get("/v1/answers", params={"domain": bench.domain})).json()["answers"]
    assert {one["generation_id"]: one["answer"] for one in answers} == {
        f"{bench.domain}-{name}": text for name, text in texts.items()
    }
    consent = answers[0]["consent"]
    assert (consent["record_answers"], consent["personal_data"], consent["revision"]) == ("all", "mask", 4)


async def test_feedback_that_comes_before_its_answers_waits_for_them(bench: Bench, database: Any) -> None:
    await publish_as(bench, opinion(bench, "a", rating=4, preferred_over="b"))
    assert set((await states(bench, 2)).values()) == {("waiting", "")}
    await publish_as(bench, recorded(bench, "b", "At noon."))
    await publish_as(bench, recorded(bench, "a", "At dusk."))

    async def used() -> bool:
        return set((await states(bench, 2)).values()) == {("used", "")}

    await eventually(used)
    rows = await database.fetch("select chosen, rejected from preferences where domain = $1", bench.domain)
    assert [tuple(row) for row in rows] == [("At dusk.", "At noon.")]
    assert await database.fetchval("select rating from samples where domain = $1", bench.domain) == 4


async def test_answers_and_feedback_that_arrive_at_once_meet_whatever_their_order(bench: Bench, database: Any) -> None:
    events: list[Event] = []
    for number in range(12):
        events += [
            recorded(bench, f"a{number}", f"Good {number}."),
            opinion(bench, f"a{number}", rating=5, preferred_over=f"b{number}"),
            recorded(bench, f"b{number}", f"Bad {number}."),
        ]
    await asyncio.gather(*(publish_as(bench, event) for event in random.Random(5).sample(events, len(events))))

    async def used() -> bool:
        return set((await states(bench, 24)).values()) == {("used", "")}

    await eventually(used)
    assert await database.fetchval("select count(*) from preferences where domain = $1", bench.domain) == 12
    assert await database.fetchval("select count(*) from samples where domain = $1", bench.domain) == 12


async def test_redelivered_and_repeated_events_and_a_killed_trainer_count_no_sample_twice(
    bench: Bench, database: Any
) -> None:
    events = [
        event
        for number in range(6)
        for event in (
            recorded(bench, f"a{number}", f"Good {number}."),
            recorded(bench, f"b{number}", f"Bad {number}."),
            opinion(bench, f"a{number}", rating=5, correction=f"Better {number}.", preferred_over=f"b{number}"),
        )
    ]
    sending = [asyncio.create_task(publish_as(bench, event)) for event in events]
    await asyncio.sleep(0)
    await bench.trainer.crash()
    await asyncio.gather(*sending)
    await bench.trainer.start()
    # The same facts under new event ids, which the inbox does not know.
    for event in events:
        await publish_as(bench, event)

    async def used() -> bool:
        return set((await states(bench, 12)).values()) == {("used", "")}

    await eventually(used)
    samples = await database.fetch("select completion, rating from samples where domain = $1", bench.domain)
    assert sorted((row["completion"], row["rating"]) for row in samples) == sorted(
        [(f"Good {number}.", 5.0) for number in range(6)] + [(f"Better {number}.", None) for number in range(6)]
    )
    assert await database.fetchval("select count(*) from preferences where domain = $1", bench.domain) == 12


async def test_a_person_who_changes_their_mind_is_counted_once_by_their_newest_word(
    bench: Bench, database: Any
) -> None:
    now = datetime.now(UTC)
    for name, text in (("a", "At dusk."), ("b", "At noon.")):
        await publish_as(bench, recorded(bench, name, text))
    # In the wrong order: the newest word comes first.
    await publish_as(bench, opinion(bench, "a", rating=2, correction="At eight.", preferred_over="b"), now)
    await publish_as(bench, opinion(bench, "a", rating=5, correction="At nine."), now - timedelta(minutes=1))
    await publish_as(bench, opinion(bench, "b", preferred_over="a"), now - timedelta(minutes=1))
    await publish_as(bench, opinion(bench, "a", rating=4, by="bob"), now)
    await states(bench, 4)

    async def settled() -> Any:
        rows = await database.fetch(
            "select completion, rating from samples where domain = $1 order by completion", bench.domain
        )
        found = [tuple(row) for row in rows]
        return found if found == [("At dusk.", 3.0), ("At eight.", None)] else None

    assert await eventually(settled), "the mean of both raters, and the newest correction"
    pairs = "select chosen, rejected from preferences where domain = $1 order by chosen, rejected"
    assert [tuple(row) for row in await database.fetch(pairs, bench.domain)] == [
        ("At dusk.", "At noon."),
        ("At eight.", "At dusk."),
    ]
    assert (await states(bench, 4))["b a"] == ("unusable", TAKEN_BACK)
    await publish_as(bench, opinion(bench, "b", preferred_over="a"), now + timedelta(minutes=1))

    async def flipped() -> bool:
        return ("At noon.", "At dusk.") in [tuple(row) for row in await database.fetch(pairs, bench.domain)]

    await eventually(flipped)
    assert [tuple(row) for row in await database.fetch(pairs, bench.domain)] == [
        ("At eight.", "At dusk."),
        ("At noon.", "At dusk."),
    ]
    assert (await states(bench, 4))["a b"] == ("unusable", TAKEN_BACK)


async def test_feedback_that_cannot_become_data_is_listed_with_its_reason_and_counted(
    bench: Bench, database: Any, mint: Any
) -> None:
    await publish_as(bench, recorded(bench, "a", "At dusk."))
    await publish_as(bench, recorded(bench, "d", "At noon.", messages=(v1.Turn(role="user", content="Another?"),)))
    await publish_as(bench, recorded(bench, "e", "At dusk.", messages=(v1.Turn(role="assistant", content="It opens"),)))
    await publish_as(bench, opinion(bench, "a", preferred_over="d"))
    await publish_as(bench, opinion(bench, "e", rating=4))
    await publish_as(bench, opinion(bench, "unknown", rating=4))
    await publish_as(bench, opinion(bench, "a", rating=4, by="eve").model_copy(update={"domain": f"{bench.domain}x"}))
    found = await states(bench, 3)
    assert found["unknown"] == ("waiting", "")
    assert found["a d"] == ("unusable", "preferred_over: an answer to another conversation, expected one to the same")
    assert found["e"] == ("unusable", "messages: a last turn of assistant, expected one of user")
    other = {"params": {"domain": f"{bench.domain}x", "state": "unusable"}}
    [foreign] = (await bench.trainer.client.get("/v1/feedback", **other)).json()["feedback"]
    assert foreign["reason"] == f"it is of domain '{bench.domain}x', the answer is of '{bench.domain}'"
    async with database.acquire() as connection:
        await answer_feedback.give_up_waiting(connection, timedelta(0), 10)
    assert (await states(bench, 3, state="unusable"))["unknown"] == ("unusable", NOT_RECORDED)

    async def counted() -> bool:
        metrics = (await bench.trainer.client.get("/metrics")).text
        name = 'lorafleet_trainer_answer_feedback{state="unusable"}'
        [line] = [one for one in metrics.splitlines() if one.startswith(name)]
        return float(line.split()[-1]) >= 4

    await eventually(counted)
    headers = {"Authorization": f"Bearer {mint(['train'], ['elsewhere'])}"}
    for path in ("/v1/feedback", "/v1/answers"):
        strange = await bench.trainer.client.get(path, headers=headers)
        assert list(strange.json().values()) == [[]]
        named = await bench.trainer.client.get(path, headers=headers, params={"domain": bench.domain})
        assert named.status_code in {403, 404}
    # An answer that comes after all is no longer waited for, and used all the same.
    await publish_as(bench, recorded(bench, "unknown", "At last."))

    async def used() -> bool:
        return (await states(bench, 3))["unknown"] == ("used", "")

    await eventually(used)


async def test_of_too_much_waiting_feedback_the_oldest_is_given_up(bench: Bench, database: Any) -> None:
    for number in range(3):
        await publish_as(bench, opinion(bench, f"w{number}", rating=4))
        await states(bench, number + 1)
    async with database.acquire() as connection:
        await answer_feedback.give_up_waiting(connection, timedelta(days=1), 2)
    assert (await states(bench, 1, state="unusable")) == {"w0": ("unusable", TOO_MANY)}


async def test_an_answer_whose_texts_are_in_the_object_store_is_read_from_there(
    bench: Bench, service_env: Any, database: Any
) -> None:
    values = {name.removeprefix("LORAFLEET_").lower(): one for name, one in service_env("inference").items()}
    settings = ServiceSettings(**{name: one for name, one in values.items() if name in ServiceSettings.model_fields})
    long = "Gate? " * 30_000
    name = f"{bench.domain}-a"
    texts = {"generation_id": name, "messages": [{"role": "user", "content": long}], "answer": "At dusk."}
    content = await Blobs("inference", settings).put("answers", json.dumps(texts).encode())
    await publish_as(bench, recorded(bench, "a", "", messages=(), content=content))
    await publish_as(bench, opinion(bench, "a", rating=5))

    async def kept() -> Any:
        return await database.fetchrow("select prompt, completion from samples where domain = $1", bench.domain)

    assert tuple(await eventually(kept)) == (long, "At dusk.")
    row = await database.fetchrow("select content_uri, stream_sequence from answers where generation_id = $1", name)
    assert row["content_uri"] == content.uri
    stored = await bench.upstream.jetstream.get_msg("LORAFLEET_ANSWERS", row["stream_sequence"])
    assert name in (stored.data or b"").decode()
    # That message alone can be deleted.
    assert await bench.upstream.jetstream.delete_msg("LORAFLEET_ANSWERS", row["stream_sequence"])
