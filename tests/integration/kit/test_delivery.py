"""Every event takes effect once, whatever happens to its deliveries."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import DATA, MAX_EVENT_BYTES, STREAM
from fleet_kit.dead_letters import list_dead, replay
from fleet_kit.errors import NotYet, Refused
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction
from tests.conftest import empty_bus
from tests.integration.kit.conftest import durable_of

SUBJECT = "lorafleet.v1.data.feedback_recorded"
pytestmark = pytest.mark.integration


class Counter:
    """Writes what it hears into the registry's own lease table, so that effects are rows of a real transaction."""

    def __init__(self) -> None:
        self.handlers: Handlers[Any] = Handlers("registry")
        self.calls: list[str] = []
        self.times: dict[str, datetime] = {}
        self.cause_of_refusal = True
        self.handlers.on(v1.FeedbackRecorded)(self.handle)

    async def handle(self, event: v1.FeedbackRecorded, tx: Transaction, service: object) -> None:
        self.calls.append(event.generation_id)
        if tx.cause is not None:
            self.times[event.generation_id] = tx.cause.time
        await tx.connection.execute(
            "insert into lease (name, holder, token, expires_at) values ($1, 'effect', 1, now())"
            " on conflict (name) do update set token = lease.token + 1",
            f"effect:{event.generation_id}",
        )
        await tx.emit(
            v1.Rejected(adapter_id=event.generation_id, family="f", domain="d", by="test"), event.generation_id
        )
        match event.comment:
            case "refuse" if self.cause_of_refusal:
                raise Refused("generation_id is unknown here")
            case "defect":
                raise RuntimeError("a defect of ours")
            case "unbearable":
                raise KeyError("nothing is known by that name")
            case "later" if self.calls.count(event.generation_id) < 3:
                raise NotYet("its adapter is not known yet", after=0.05)

    async def effects(self, service: Any, generation: str) -> int:
        async with service.db.acquire() as connection:
            name = f"effect:{generation}"
            return int(await connection.fetchval("select token from lease where name = $1", name) or 0)


async def publish(jetstream: JetStreamContext, generation: str, comment: str = "", **headers: str) -> None:
    body = v1.FeedbackRecorded(generation_id=generation, rating=5, comment=comment).to_json()
    await jetstream.publish(SUBJECT, body, headers=headers or None)


async def acknowledged(jetstream: JetStreamContext) -> bool:
    """Whether everything delivered is committed or given up: events that arrive together share a transaction."""
    return (await durable_of(jetstream, "registry", v1.FeedbackRecorded)).idle


async def dead(jetstream: JetStreamContext) -> list[str]:
    return [letter.reason async for letter in list_dead(jetstream)]


async def published(jetstream: JetStreamContext, entity: str) -> int:
    """How many Rejected events about an entity the stream holds."""
    sequence, found = 1, 0
    last = (await jetstream.stream_info(STREAM)).state.last_seq
    while sequence <= last:
        message = await jetstream.get_msg(STREAM, seq=sequence)
        sequence += 1
        if (message.headers or {}).get("ce-subject") == entity and message.subject == "lorafleet.v1.adapter.rejected":
            found += 1
    return found


async def test_an_event_delivered_three_times_takes_effect_once(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        for attempt in range(3):
            await publish(jetstream, "thrice", **{"ce-id": "event-thrice", "Nats-Msg-Id": f"copy-{attempt}"})
        await publish(jetstream, "after")
        await eventually(lambda: "after" in counter.calls)
        await eventually(lambda: acknowledged(jetstream))
        assert await counter.effects(service, "thrice") == 1
        await eventually(lambda: published(jetstream, "after"))
        assert await published(jetstream, "thrice") == 1


async def test_an_event_that_comes_again_to_a_new_process_takes_no_second_effect(
    run_kit, jetstream, eventually
) -> None:
    counter = Counter()
    async with run_kit(counter.handlers):
        await publish(jetstream, "days-late", **{"ce-id": "event-late"})
        await eventually(lambda: counter.calls)
    later = Counter()
    async with run_kit(later.handlers) as service:
        await publish(jetstream, "days-late", **{"ce-id": "event-late", "Nats-Msg-Id": "a copy days later"})
        await publish(jetstream, "marker")
        await eventually(lambda: "marker" in later.calls)
        await eventually(lambda: acknowledged(jetstream))
        assert later.calls == ["marker"]
        assert await later.effects(service, "days-late") == 1


async def test_the_same_id_from_two_sources_is_two_events_and_each_takes_effect_once(
    run_kit, jetstream, eventually
) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        for source in ("https://shop", "https://crm", "", "https://shop"):
            named = {"ce-source": source} if source else {}
            await publish(jetstream, f"of {source}", **{"ce-id": "event-shared"}, **named)
        document = {"specversion": "1.0", "id": "event-shared", "source": "https://crm"}
        body = json.dumps({**document, "data": {"generationId": "of https://crm", "rating": 5}}).encode()
        await jetstream.publish(SUBJECT, body, headers={"content-type": "application/cloudevents+json"})
        await publish(jetstream, "after-sources")
        await eventually(lambda: "after-sources" in counter.calls)
        await eventually(lambda: acknowledged(jetstream))
        assert counter.calls == ["of https://shop", "of https://crm", "of ", "after-sources"]
        assert [await counter.effects(service, name) for name in counter.calls[:3]] == [1, 1, 1]


async def test_an_event_that_tells_no_time_happened_when_it_was_stored(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    await publish(jetstream, "untimed")
    stored = await jetstream.get_last_msg(DATA.name, SUBJECT)
    await publish(jetstream, "timed", **{"ce-id": "event-timed", "ce-time": "2026-01-31T12:00:00Z"})
    async with run_kit(counter.handlers):
        await eventually(lambda: {"untimed", "timed"} <= counter.times.keys())
    # The two ways to a stored time round its nanoseconds differently.
    assert abs(counter.times["untimed"] - stored.time) < timedelta(milliseconds=1)
    assert counter.times["timed"] == datetime(2026, 1, 31, 12, tzinfo=UTC)


async def test_an_event_that_an_earlier_release_handled_takes_no_second_effect(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        async with service.db.acquire() as connection:  # as releases did that knew no source
            await connection.execute(
                "insert into inbox (consumer, event_id) values ('registry-data_feedback_recorded', 'event-before')"
            )
        await publish(jetstream, "before", **{"ce-id": "event-before", "ce-source": "https://shop"})
        await publish(jetstream, "after-before")
        await eventually(lambda: "after-before" in counter.calls)
        assert "before" not in counter.calls


async def test_an_event_without_an_id_in_a_recreated_stream_is_a_new_one(
    run_kit, jetstream, servers, eventually
) -> None:
    counter = Counter()
    await empty_bus(servers)
    async with run_kit(counter.handlers):
        await publish(jetstream, "nameless")
        await eventually(lambda: counter.calls == ["nameless"])
    await empty_bus(servers)
    later = Counter()
    async with run_kit(later.handlers):
        await publish(jetstream, "nameless too")  # message 1 of its stream, as the first one was
        await eventually(lambda: later.calls == ["nameless too"])


async def test_a_failed_handler_leaves_no_effect_and_no_event_behind(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        await publish(jetstream, "refused", "refuse")
        await eventually(lambda: dead(jetstream))
        await eventually(lambda: acknowledged(jetstream))
        assert await counter.effects(service, "refused") == 0
        assert await published(jetstream, "refused") == 0
        assert (await dead(jetstream))[-1] == "refused: generation_id is unknown here"


async def test_a_dead_letter_replayed_after_its_cause_is_gone_takes_effect(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        await publish(jetstream, "again", "refuse", **{"ce-id": "event-again"})
        await eventually(lambda: dead_of(jetstream, "event-again"))
        counter.cause_of_refusal = False
        [letter] = await dead_of(jetstream, "event-again")
        await replay(jetstream, letter.sequence)
        await eventually(lambda: counter.calls.count("again") == 2)
        await eventually(lambda: published(jetstream, "again"))
        assert await counter.effects(service, "again") == 1
        assert await dead_of(jetstream, "event-again") == []


async def test_a_replayed_dead_letter_goes_to_the_consumer_that_gave_it_up_alone(
    run_kit, jetstream, eventually
) -> None:
    counter = Counter()
    consumed: list[str] = []
    others: Handlers[Any] = Handlers("trainer")

    @others.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: object) -> None:
        consumed.append(event.generation_id)

    async with run_kit(counter.handlers), run_kit(others) as trainer:
        await publish(jetstream, "for-one", "refuse", **{"ce-id": "event-for-one"})
        await eventually(lambda: dead_of(jetstream, "event-for-one"))
        await eventually(lambda: consumed)
        async with trainer.db.acquire() as connection:  # as if the row had been forgotten meanwhile
            await connection.execute("delete from inbox")
        counter.cause_of_refusal = False
        [letter] = await dead_of(jetstream, "event-for-one")
        await replay(jetstream, letter.sequence)
        await publish(jetstream, "after-replay")
        await eventually(lambda: "after-replay" in counter.calls and "after-replay" in consumed)
        assert counter.calls.count("for-one") == 2
        assert consumed.count("for-one") == 1


async def dead_of(jetstream: JetStreamContext, event_id: str) -> list[Any]:
    return [letter async for letter in list_dead(jetstream) if letter.event_id == event_id]


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"{not json", {}, "Invalid JSON"),
        (b'{"generationId": "x", "rating": "many"}', {}, "rating: Input should be an integer"),
        (b'{"generationId": "x", "rating": 9}', {}, "rating: Input should be less than or equal to 5"),
        (b'{"rating": 3}', {}, "generationId: Field required"),
        (b"{}", {"ce-type": "lorafleet.events.v1.Approved"}, "does not belong on"),
        (b"{}", {"content-type": "text/plain"}, "content-type 'text/plain' is not readable"),
        (b"\xff\xff", {"content-type": "application/protobuf"}, "is not a binary"),
        (b'{"comment": "' + b"x" * MAX_EVENT_BYTES + b'"}', {}, f"is over the {MAX_EVENT_BYTES}"),
    ],
)
async def test_a_broken_event_becomes_a_dead_letter_with_its_reason_and_blocks_no_other(
    run_kit, jetstream, eventually, body, headers, reason
) -> None:
    counter = Counter()
    event_id = f"broken-{abs(hash((body[:40], reason)))}"
    async with run_kit(counter.handlers):
        await jetstream.publish(SUBJECT, body, headers={"ce-id": event_id, **headers})
        await publish(jetstream, f"behind-{event_id}")
        await eventually(lambda: f"behind-{event_id}" in counter.calls)
        await eventually(lambda: dead_of(jetstream, event_id))
        [letter] = await dead_of(jetstream, event_id)
        assert reason in letter.reason
        assert letter.body == body


async def test_a_defect_is_tried_again_and_becomes_a_dead_letter_with_its_exception(
    run_kit, jetstream, eventually
) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        await publish(jetstream, "defect", "defect", **{"ce-id": "event-defect"})
        await eventually(lambda: dead_of(jetstream, "event-defect"), 30)
        [letter] = await dead_of(jetstream, "event-defect")
        assert "failed 5 times: RuntimeError('a defect of ours')" in letter.reason
        assert counter.calls.count("defect") == 5
        assert await counter.effects(service, "defect") == 0


async def test_content_that_no_try_can_handle_is_a_dead_letter_at_the_first(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers):
        await publish(jetstream, "unbearable", "unbearable", **{"ce-id": "event-unbearable"})
        await eventually(lambda: dead_of(jetstream, "event-unbearable"))
        [letter] = await dead_of(jetstream, "event-unbearable")
        assert "cannot be handled: KeyError" in letter.reason
        assert counter.calls == ["unbearable"]


async def test_an_event_that_is_too_early_comes_again_by_itself(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers) as service:
        await publish(jetstream, "early", "later")
        await eventually(lambda: counter.calls.count("early") == 3)
        await eventually(lambda: acknowledged(jetstream))
        assert await counter.effects(service, "early") == 1


async def test_unknown_fields_are_ignored_and_protobuf_bodies_are_read(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers):
        await jetstream.publish(SUBJECT, b'{"generationId": "newer", "rating": 4, "aFieldOfTomorrow": [1]}')
        # Field 1 (generation_id) = "binary", field 4 (rating) = 5.
        body = b"\x0a\x06binary\x20\x05"
        await jetstream.publish(SUBJECT, body, headers={"content-type": "application/protobuf"})
        await eventually(lambda: {"newer", "binary"} <= set(counter.calls))


async def test_a_dead_letter_names_the_event_also_where_its_body_does(run_kit, jetstream, eventually) -> None:
    counter = Counter()
    async with run_kit(counter.handlers):
        document = {"specversion": "1.0", "id": "in-the-body", "data": {"generationId": "structured", "rating": 9}}
        await jetstream.publish(SUBJECT, json.dumps(document).encode())
        await eventually(lambda: dead_of(jetstream, "in-the-body"))
        [letter] = await dead_of(jetstream, "in-the-body")
        assert "rating: Input should be less than or equal to 5" in letter.reason
