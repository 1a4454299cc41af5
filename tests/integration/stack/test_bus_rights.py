"""Every user of the bus against every subject, asked of the real server: as subject, as reply subject, as subscription."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator

import httpx
import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import APIError

from fleet_cli.stack import Fleet
from fleet_events.buckets import BUCKETS
from fleet_events.topology import DATA, ERASABLE, SERVICES, STORING, STREAMS, TOPOLOGY, Row, durable_name
from fleet_kit.cloudevents import open_envelope
from fleet_kit.errors import Refused
from fleet_kit.nats_auth import USERS, inbox_prefix
from tests.conftest import empty_bus

ALL_STREAMS = (
    *(stream.name for stream in STREAMS),
    "LORAFLEET_DLQ",
    "LORAFLEET_PROBE",
    *(bucket.stream for bucket in BUCKETS),
)
EVENTS = [row.subject for row in TOPOLOGY]
DEAD = {f"lorafleet.dlq.{service}.some_event": service for service in SERVICES}
PROBES = {f"lorafleet.probe.{service}": service for service in SERVICES}
READERS = {bucket.name: set() if bucket.kept else {bucket.service, *bucket.readers} for bucket in BUCKETS}
KEYS = {f"$KV.{bucket.name}.some-key": bucket.service for bucket in BUCKETS}
MANAGEMENT = [
    f"$JS.API.{verb}.{stream}"
    for stream in ALL_STREAMS
    for verb in (
        "STREAM.CREATE",
        "STREAM.UPDATE",
        "STREAM.DELETE",
        "STREAM.PURGE",
        "STREAM.MSG.GET",
        "STREAM.MSG.DELETE",
    )
]
OTHERS = ["$SYS.REQ.SERVER.PING", "$JS.API.INFO", "$JS.API.STREAM.NAMES", "elsewhere", "lorafleet.v1.adapter.invented"]


def owners() -> dict[str, set[str]]:
    """Each subject and who, beside the admin, may publish it."""
    found = {row.subject: set(row.published_by) for row in TOPOLOGY}
    for owned in (DEAD, PROBES, KEYS):
        found |= {subject: {service} for subject, service in owned.items()}
    for row in TOPOLOGY:
        for consumer in row.consumed_by:
            durable = durable_name(consumer, row)
            found[f"$JS.ACK.{stream_of(row)}.{durable}.1.1.1.1.0"] = {consumer.service}
            found[f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(row)}.{durable}"] = {consumer.service}
            found[f"$JS.API.CONSUMER.DELETE.{stream_of(row)}.{durable}"] = set()
    for bucket in BUCKETS:
        found[f"$JS.API.CONSUMER.CREATE.KV_{bucket.name}.some-name.$KV.{bucket.name}.>"] = READERS[bucket.name]
    found["$JS.API.DIRECT.GET.LORAFLEET.lorafleet.v1.adapter.deactivated"] = {"registry"}
    found["$JS.API.DIRECT.GET.LORAFLEET_DATA.lorafleet.v1.data.sample_recorded"] = set()
    found |= {
        f"$JS.API.DIRECT.GET.LORAFLEET_DLQ.lorafleet.dlq.{service}.some_event.1-1": {service} & set(STORING)
        for service in SERVICES
    }
    found |= {subject: set() for subject in (*MANAGEMENT, *OTHERS)}
    found |= {f"$JS.API.STREAM.MSG.GET.{bucket.stream}": {bucket.service} for bucket in BUCKETS if bucket.kept}
    found |= {
        f"$JS.API.STREAM.MSG.DELETE.{stream}": {service} for service, streams in ERASABLE.items() for stream in streams
    }
    found |= {f"{inbox_prefix(user)}.forged": set() for user in USERS}
    return found


def stream_of(row: Row) -> str:
    return row.stream.name


def refused_subjects(refusals: list[str], kind: str) -> set[str]:
    pattern = re.compile(rf"permissions violation for {kind} to \"([^\"]+)\"", re.IGNORECASE)
    return {match[1].lower() for text in refusals for match in pattern.finditer(text)}


async def all_refused(client: Client, refusals: list[str], kind: str, wanted: set[str]) -> set[str]:
    """What the server refused: its answers have come when it answers the PING that follows, and are noted soon after."""
    await client.flush()
    for _ in range(100):
        if refused_subjects(refusals, kind) == wanted:
            break
        await asyncio.sleep(0.02)
    return refused_subjects(refusals, kind)


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def refusals() -> list[str]:
    return []


@pytest.fixture
async def client(servers: Fleet, user: str, refusals: list[str]) -> AsyncIterator[Client]:
    async def note(error: Exception) -> None:
        refusals.append(str(error))

    connected = await servers.connect_nats(user, error_cb=note)
    yield connected
    await connected.close()
    await empty_bus(servers)


async def test_a_user_publishes_its_own_subjects_and_no_other(client: Client, user: str, refusals: list[str]) -> None:
    expected = owners()
    destructive = {subject for subject in expected if user == "admin" and subject.startswith("$JS.API")}
    for subject in expected.keys() - destructive:
        await client.publish(subject, b"{}")
    wanted = {subject.lower() for subject, users in expected.items() if user not in {*users, "admin"}}
    assert await all_refused(client, refusals, "publish", wanted) == wanted


async def test_a_user_subscribes_to_its_own_inbox_and_nothing_else(
    client: Client, user: str, refusals: list[str]
) -> None:
    subjects = {*owners(), "lorafleet.>", ">", "$KV.>", "_INBOX.>"}
    for subject in subjects:
        await client.subscribe(subject)
    own = set() if user != "admin" else {subject.lower() for subject in subjects}
    own.add(f"{inbox_prefix(user)}.forged".lower())
    wanted = {subject.lower() for subject in subjects} - own
    assert await all_refused(client, refusals, "subscription", wanted) == wanted


@pytest.mark.parametrize("user", ["upstream"], indirect=True)
async def test_a_reply_subject_of_upstream_reaches_no_stream(
    client: Client, user: str, servers: Fleet, jetstream: JetStreamContext
) -> None:
    """The server publishes the PubAck to the reply subject: it must not come to lie where others read facts."""
    own = next(row.subject for row in TOPOLOGY if user in row.published_by)
    before = await stored(jetstream)
    for subject in owners():
        await client.publish(own, b"{}", reply=subject)
    await client.flush()
    await asyncio.sleep(0.3)
    after = await stored(jetstream)
    assert own in after
    assert after - before <= {row.subject for row in TOPOLOGY if user in row.published_by}


async def test_what_a_services_reply_subject_has_stored_is_no_event(
    client: Client, user: str, jetstream: JetStreamContext
) -> None:
    if user not in SERVICES or user == "router":
        pytest.skip("publishes no events with a reply, or may publish everything")
    own = next(row.subject for row in TOPOLOGY if user in row.published_by)
    for subject in EVENTS:
        await client.publish(own, b"{}", reply=subject)
    await client.flush()
    async with asyncio.timeout(20):
        while len(found := await acknowledgements(jetstream)) < len(EVENTS) - 2:
            await asyncio.sleep(0.05)
    for message in found:
        with pytest.raises(Refused):
            open_envelope(message.subject or "", message.headers, message.data or b"", message.seq or 0)


async def acknowledgements(jetstream: JetStreamContext) -> list[RawStreamMsg]:
    """PubAcks that lie in the streams of events."""
    found = []
    for name in (stream.name for stream in STREAMS):
        state = (await jetstream.stream_info(name)).state
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            message = await jetstream.get_msg(name, sequence)
            if b'"stream"' in (message.data or b""):
                found.append(message)
    return found


async def stored(jetstream: JetStreamContext) -> set[str]:
    """Subjects of everything that any stream holds."""
    found: set[str] = set()
    for info in await jetstream.streams_info():
        detail = await jetstream.stream_info(str(info.config.name), subjects_filter=">")
        found |= (detail.state.subjects or {}).keys()
    return found


async def test_upstream_gets_its_acknowledgement_and_a_repetition_is_stored_once(
    servers: Fleet, jetstream: JetStreamContext
) -> None:
    subject = next(row.subject for row in TOPOLOGY if "upstream" in row.published_by)
    upstream = await servers.connect_nats("upstream")
    try:
        headers = {"Nats-Msg-Id": secrets.token_hex(8)}
        first = await upstream.jetstream(timeout=5).publish(subject, b"{}", headers=headers)
        again = await upstream.jetstream(timeout=5).publish(subject, b"{}", headers=headers)
        assert (again.seq, again.duplicate) == (first.seq, True)
        plain = await upstream.request(subject, b"{}", timeout=5)
        assert f'"stream":"{first.stream}"'.encode() in plain.data.replace(b" ", b"")
    finally:
        await upstream.close()
        await empty_bus(servers)


async def test_upstream_is_told_by_the_acknowledged_form_alone_that_a_stream_is_full(
    servers: Fleet, jetstream: JetStreamContext
) -> None:
    """`nats pub --jetstream` is a request whose reply is the acknowledgement; `nats pub` publishes and asks nothing."""
    subject = "lorafleet.v1.data.sample_recorded"
    config = (await jetstream.stream_info(DATA.name)).config
    await jetstream.update_stream(config.evolve(max_bytes=1))
    upstream = await servers.connect_nats("upstream")
    try:
        await upstream.publish(subject, b"{}")
        await upstream.flush()
        with pytest.raises(APIError, match="maximum bytes exceeded"):
            await upstream.jetstream(timeout=5).publish(subject, b"{}")
        refused = await upstream.request(subject, b"{}", timeout=5)
        assert "maximum bytes exceeded" in json.loads(refused.data)["error"]["description"]
        assert (await jetstream.stream_info(DATA.name)).state.messages == 0
        await jetstream.update_stream(config)
        assert json.loads((await upstream.request(subject, b"{}", timeout=5)).data)["seq"] == 1
    finally:
        await upstream.close()
        await empty_bus(servers)


async def test_upstream_gets_no_reply_below_another_prefix_than_its_own(servers: Fleet) -> None:
    faults: list[str] = []

    async def report(error: Exception) -> None:
        faults.append(str(error))

    client = await nats.connect(
        servers.info.nats_url, nkeys_seed=str(servers.credentials.nats_seeds["upstream"]), error_cb=report
    )
    try:
        with pytest.raises(nats.errors.TimeoutError):
            await client.request("lorafleet.v1.data.sample_recorded", b"{}", timeout=1)
        # The client writes what the server says in small letters.
        assert any('permissions violation for subscription to "_inbox.' in fault for fault in faults)
    finally:
        await client.close()
        await empty_bus(servers)


async def test_the_monitoring_port_tells_an_autoscaler_how_many_events_a_durable_has_to_handle(
    servers: Fleet, jetstream: JetStreamContext
) -> None:
    """What KEDA's scaler `nats-jetstream` asks for: the account's streams with their consumers, without a credential."""
    for _ in range(3):
        await jetstream.publish("lorafleet.v1.training.queued", b"{}")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{servers.ports['nats_monitor']}") as monitor:
            answer = (await monitor.get("/jsz", params={"acc": "FLEET", "consumers": "true", "config": "true"})).json()
        (account,) = answer["account_details"]
        (stream,) = [one for one in account["stream_detail"] if one["name"] == "LORAFLEET"]
        (durable,) = [one for one in stream["consumer_detail"] if one["name"] == "trainer-training_queued"]
        assert (account["name"], durable["num_pending"], durable["num_ack_pending"]) == ("FLEET", 3, 0)
    finally:
        await empty_bus(servers)
