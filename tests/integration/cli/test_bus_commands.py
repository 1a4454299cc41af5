"""events, dlq and provision on a real nats-server, with its real users and permissions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events import Event, v1
from fleet_events.topology import ANSWERS, DATA, DEAD_STREAM, FACTS, SERVING, STREAM, STREAMS, row_of
from fleet_kit.cloudevents import seal
from fleet_kit.tasks import end
from lorafleet import bus
from lorafleet.home import FleetHome
from tests.conftest import empty_bus
from tests.integration.cli.conftest import Ran, run_in

pytestmark = pytest.mark.integration
SAMPLE = {"domain": "tax", "prompt": "What is due?", "completion": "Everything."}


@pytest.fixture
def home(servers: Fleet) -> Path:
    return servers.home.root


async def run(home: Path, *arguments: str, stdin: str = "") -> Ran:
    return await asyncio.to_thread(run_in, home, *arguments, stdin=stdin)


async def test_a_published_event_is_stored_with_the_headers_and_body_that_were_printed(
    home: Path, jetstream: JetStreamContext, module_database: str
) -> None:
    ran = await run(home, "events", "publish", "SampleRecorded", "-", "--json", stdin=json.dumps(SAMPLE))
    assert ran.code == 0, ran.err
    stored = await jetstream.get_msg(DATA.name, seq=ran.json["sequence"])
    assert stored.subject == ran.json["subject"] == "lorafleet.v1.data.sample_recorded"
    assert stored.headers is not None
    assert ran.json["headers"].items() <= stored.headers.items()
    assert json.loads(stored.data or b"") == ran.json["body"] == SAMPLE


async def test_a_tail_from_the_start_shows_every_event_in_order_and_filters_by_type(
    home: Path, module_database: str
) -> None:
    await run(home, "events", "publish", "SampleRecorded", "-", stdin=json.dumps(SAMPLE))
    request = json.dumps({"domain": "tax", "jobId": "job-1"})
    await run(home, "events", "publish", "TrainingRequested", "-", stdin=request)
    everything = await run(home, "events", "tail", "--from-start", "--no-follow", "--json")
    sequences = [one["sequence"] for one in everything.json_lines]
    assert sequences == sorted(sequences)
    assert {one["type"] for one in everything.json_lines} == {"SampleRecorded", "TrainingRequested"}
    one_type = await run(home, "events", "tail", "--from-start", "--no-follow", "--type", "TrainingRequested")
    assert [line.split()[2:4] for line in one_type.out.splitlines()] == [["TrainingRequested", "job_id=job-1"]]


async def test_a_running_tail_prints_an_event_that_comes_later(home: Path, module_database: str) -> None:
    tail = asyncio.create_task(run(home, "events", "tail", "--count", "1", "--json", "--type", "SampleRecorded"))
    while not tail.done():
        # The tail may not listen yet: it shows the first event after it does.
        await run(home, "events", "publish", "SampleRecorded", "-", stdin=json.dumps(SAMPLE))
    [event] = (await tail).json_lines
    assert event["body"] == SAMPLE


async def publish(jetstream: JetStreamContext, event: Event, number: int) -> None:
    out = seal(event, service=row_of(type(event)).published_by[0], entity=str(number), trace={})
    await jetstream.publish(out.subject, out.body, headers=out.headers)


def of_each_stream(number: int) -> list[Event]:
    """Events of the data, the facts, the serving and the answers stream."""
    base = v1.SampleRecorded(domain="tax", prompt=f"p-{number}", completion="c")
    fact = v1.Rejected(adapter_id=f"a-{number}", family="f", domain="tax", by="test")
    return [
        base,
        fact,
        v1.AdapterUnloaded(adapter_id=f"a-{number}", domain="tax", artifact_sha256="0" * 64, replica="r"),
        v1.GenerationRecorded(
            generation_id=f"gen-{number}",
            domain="tax",
            base_model=v1.BaseModel(name="m", revision="0" * 64),
            sampling=v1.Sampling(),
            consent=v1.Consent(record_answers=v1.RecordAnswers.ALL, personal_data=v1.PersonalDataAction.MASK),
        ),
    ]


async def test_a_tail_from_the_start_merges_the_streams_by_time_and_goes_on_with_what_comes(
    home: Path, jetstream: JetStreamContext, module_database: str, servers: Fleet
) -> None:
    await empty_bus(servers)
    for number in range(3):
        for event in of_each_stream(number):
            await publish(jetstream, event, number)
    past = (await run(home, "events", "tail", "--from-start", "--no-follow", "--json")).json_lines
    assert [one["stream"] for one in past] == [DATA.name, FACTS.name, SERVING.name, ANSWERS.name] * 3
    assert [one["sequence"] for one in past] == [1] * 4 + [2] * 4 + [3] * 4
    assert sorted(past, key=lambda one: one["time"]) == past
    tail = asyncio.create_task(run(home, "events", "tail", "--from-start", "--count", "16", "--json"))
    await asyncio.sleep(1)
    for event in of_each_stream(3):
        await publish(jetstream, event, 3)
    shown = (await tail).json_lines
    assert shown[:12] == past
    assert {one["stream"] for one in shown[12:]} == {one.name for one in STREAMS}


async def test_who_follows_all_streams_misses_nothing_when_they_are_recreated(
    home: Path, jetstream: JetStreamContext, module_database: str, servers: Fleet
) -> None:
    seen: list[tuple[str, int]] = []
    for event in of_each_stream(0):
        await publish(jetstream, event, 0)

    async def listen() -> None:
        async with bus.connect(FleetHome(home, {})) as client:
            async for received in bus.follow(client, after={}):
                seen.append((received.stream, received.sequence))

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(seen) < count:
                await asyncio.sleep(0.05)

    listening = asyncio.create_task(listen())
    try:
        await until(len(STREAMS))
        await empty_bus(servers)
        before = len(seen)
        for event in of_each_stream(1):
            await publish(jetstream, event, 1)
        await until(before + len(STREAMS))
        assert sorted(seen[before:]) == sorted((stream.name, 1) for stream in STREAMS)
    finally:
        await end(listening)


async def test_a_tail_of_a_bus_that_was_never_provisioned_says_so(
    home: Path, jetstream: JetStreamContext, module_database: str, servers: Fleet
) -> None:
    await jetstream.delete_stream(SERVING.name)
    try:
        ran = await run(home, "events", "tail", "--from-start")
        assert (ran.code, "stream not found (was `lorafleet provision` run?)" in ran.err) == (1, True), ran.err
    finally:
        await empty_bus(servers)


async def test_a_dead_letter_is_listed_shown_and_replayed_once(
    home: Path, jetstream: JetStreamContext, module_database: str
) -> None:
    subject, consumer = "lorafleet.v1.data.sample_recorded", "trainer-data_sample_recorded"
    headers = {
        "ce-id": "event-1",
        "ce-type": "lorafleet.events.v1.SampleRecorded",
        "content-type": "application/json",
        "Lorafleet-Reason": "prompt: empty",
        "Lorafleet-Consumer": consumer,
        "Lorafleet-Subject": subject,
        "Lorafleet-Deliveries": "5",
        "Lorafleet-Sequence": "7",
        "Lorafleet-Stored": "2026-12-02T10:00:00+00:00",
    }
    dead = await jetstream.publish(f"lorafleet.dlq.{consumer}", json.dumps(SAMPLE).encode(), headers=headers)
    listed = await run(home, "dlq", "list", "--json")
    assert [(one["sequence"], one["reason"]) for one in listed.json] == [(dead.seq, "prompt: empty")]
    shown = (await run(home, "dlq", "show", str(dead.seq), "--json")).json
    assert shown["body"] == SAMPLE
    assert shown["origin"] == {"sequence": 7, "time": "2026-12-02T10:00:00+00:00"}
    assert "message 7 of 2026-12-02 10:00:00" in (await run(home, "dlq", "show", str(dead.seq))).out
    before = (await jetstream.stream_info(DATA.name)).state.last_seq
    replayed = await run(home, "dlq", "replay", str(dead.seq))
    assert replayed.code == 0, replayed.err
    assert (await jetstream.stream_info(DATA.name)).state.last_seq == before + 1
    assert (await jetstream.stream_info(DEAD_STREAM)).state.messages == 0
    again = await run(home, "dlq", "replay", str(dead.seq))
    assert again.code == 2
    assert f"there is no dead letter {dead.seq}" in again.err


async def test_drift_is_told_with_exit_code_1_by_check_and_mended_without(
    home: Path, jetstream: JetStreamContext, module_database: str
) -> None:
    assert (await run(home, "provision", "--check")).code == 0
    await jetstream.delete_consumer(STREAM, "registry-training_completed")
    checked = await run(home, "provision", "--check")
    assert checked.code == 1
    assert "registry-training_completed" in checked.out
    assert (await run(home, "provision", "--no-migrations")).code == 0
    assert (await run(home, "provision", "--check")).code == 0


async def test_status_names_what_is_not_there(home: Path, module_database: str) -> None:
    ran = await run(home, "status", "--json")
    assert ran.code == 1
    states = {one["part"]: one["state"] for one in ran.json}
    assert (states["nats"], states["s3"], states["registry"]) == ("ready", "up", "unknown")


@pytest.mark.parametrize("arguments", [("dlq", "list"), ("events", "tail", "--from-start", "--no-follow", "--json")])
async def test_commands_of_the_bus_end_quietly_when_their_reader_is_gone(
    home: Path, module_database: str, arguments: tuple[str, ...]
) -> None:
    await run(home, "events", "publish", "SampleRecorded", "-", stdin=json.dumps(SAMPLE))
    command = [sys.executable, "-m", "fleet_cli.app", *arguments, "--home", str(home)]
    assert await asyncio.to_thread(ended_early, command) == (141, b"")


def ended_early(command: list[str]) -> tuple[int, bytes]:
    """Exit code and standard error of a command whose reader is gone before it writes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        output = process.stderr.read()
        return process.wait(60), output
