"""A projection sees every fact from the stream's start, under its own narrow permissions."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_kit.bus import Bus
from fleet_kit.cloudevents import seal
from fleet_kit.projection import follow
from fleet_kit.tasks import end
from tests.conftest import empty_bus

pytestmark = pytest.mark.integration


async def test_a_projection_is_handed_old_and_new_facts_and_says_when_it_caught_up(
    settings_of, jetstream, eventually
) -> None:
    def rejected(adapter: str) -> bytes:
        return v1.Rejected(adapter_id=adapter, family="f", domain="d", by="test").to_json()

    async def publish(adapter: str, service: str = "registry") -> None:
        event = v1.Rejected(adapter_id=adapter, family="f", domain="d", by="test")
        out = seal(event, service=service, entity=adapter, trace={})
        await jetstream.publish(out.subject, out.body, headers=out.headers)

    for number in range(20):
        await publish(f"old-{number}")
    await jetstream.publish("lorafleet.v1.adapter.rejected", b"broken")
    await publish("of a service that may not publish it", service="trainer")
    await jetstream.publish("lorafleet.v1.adapter.rejected", rejected("without any attribute"))
    seen: list[str] = []

    async def apply(event: v1.Rejected, envelope: object) -> None:
        seen.append(event.adapter_id)

    bus = Bus("inference", settings_of("inference"))
    caught_up = asyncio.Event()
    following = asyncio.create_task(
        follow(await bus.connect(), "lorafleet.v1.adapter.>", [v1.Rejected], apply, caught_up)
    )
    try:
        await asyncio.wait_for(caught_up.wait(), 10)
        assert seen == [f"old-{number}" for number in range(20)]
        await publish("new")
        await eventually(lambda: seen[-1:] == ["new"])
    finally:
        following.cancel()
        await bus.stop()


async def test_a_projection_of_an_empty_stream_is_caught_up_at_once(settings_of, service_env) -> None:
    bus = Bus("inference", settings_of("inference"))
    caught_up = asyncio.Event()

    async def apply(event: object, envelope: object) -> None:
        raise AssertionError("nothing was said")

    following = asyncio.create_task(
        follow(await bus.connect(), "lorafleet.v1.adapter.>", [v1.AdapterActivated], apply, caught_up)
    )
    try:
        await asyncio.wait_for(caught_up.wait(), 10)
    finally:
        following.cancel()
        await bus.stop()


class Follower:
    """What a projection of inference has seen, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.positions: list[int] = []
        self.caught_up = asyncio.Event()

    async def apply(self, event: v1.Rejected, _envelope: object) -> None:
        self.seen.append(event.adapter_id)

    @asynccontextmanager
    async def following(self, bus: Bus) -> AsyncIterator[None]:
        running = asyncio.create_task(
            follow(
                await bus.connect(),
                "lorafleet.v1.adapter.>",
                [v1.Rejected],
                self.apply,
                self.caught_up,
                passed=self.positions.append,
            )
        )
        try:
            await asyncio.wait_for(self.caught_up.wait(), 10)
            yield
        finally:
            await end(running)
            await bus.stop()


def pid_of(servers: Fleet) -> int:
    """Process id of the NATS server."""
    return int(json.loads((servers.home.run / "nats.json").read_text())["pid"])


async def publish(jetstream: JetStreamContext, adapter: str) -> int:
    event = v1.Rejected(adapter_id=adapter, family="f", domain="d", by="test")
    out = seal(event, service="registry", entity=adapter, trace={})
    return (await jetstream.publish(out.subject, out.body, headers=out.headers, timeout=5)).seq


async def test_a_follower_reads_a_recreated_stream_from_its_start(
    settings_of, servers: Fleet, jetstream: JetStreamContext, eventually
) -> None:
    follower = Follower()
    for number in range(5):
        await publish(jetstream, f"before-{number}")
    async with follower.following(Bus("inference", settings_of("inference"))):
        await empty_bus(servers)
        follower.seen.clear()
        assert await publish(jetstream, "first of the new stream") == 1  # a sequence that the old one had long passed
        await publish(jetstream, "second of it")
        await eventually(lambda: follower.seen[-2:] == ["first of the new stream", "second of it"], 5)
        assert follower.positions[-1] == 2


async def test_a_follower_receives_events_within_two_seconds_of_the_return_of_a_killed_server_or_one_that_stood_still(
    settings_of, servers: Fleet, jetstream: JetStreamContext, eventually
) -> None:
    follower = Follower()

    def stand_still(pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    async with follower.following(Bus("inference", settings_of("inference"))):
        for turn, seconds in enumerate((0.2, 4.0)):
            await asyncio.to_thread(stand_still, pid_of(servers), seconds)
            await publish(jetstream, f"after standing still {turn}")
            began = time.monotonic()
            await eventually(lambda turn=turn: f"after standing still {turn}" in follower.seen, 10)
            assert time.monotonic() - began < 2
        for turn, seconds in enumerate((0.0, 3.0)):
            await asyncio.to_thread(servers.stop_part, "nats")
            await asyncio.sleep(seconds)
            await asyncio.to_thread(servers.start_part, "nats")
            returned = await servers.connect_nats("admin")
            began = time.monotonic()
            await publish(returned.jetstream(timeout=5), f"after a kill {turn}")
            await eventually(lambda turn=turn: f"after a kill {turn}" in follower.seen, 10)
            took = time.monotonic() - began
            await returned.close()
            assert took < 2


async def test_a_follower_that_is_slower_than_the_stream_misses_nothing(
    settings_of, jetstream: JetStreamContext, eventually, servers: Fleet
) -> None:
    await empty_bus(servers)
    for number in range(300):
        await publish(jetstream, f"many-{number}")

    class Slow(Follower):
        async def apply(self, event: v1.Rejected, envelope: object) -> None:
            await super().apply(event, envelope)
            if len(self.seen) == 20:
                time.sleep(2.5)  # noqa: ASYNC251  # the process stands still, as one that collects garbage or is swapped out
            await asyncio.sleep(0.001)

    slow = Slow()
    async with slow.following(Bus("inference", settings_of("inference"))):
        await eventually(lambda: slow.seen[-1] == "many-299")
        assert slow.seen[-300:] == [f"many-{number}" for number in range(300)]
