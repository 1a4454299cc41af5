"""A projection sees every fact from the stream's start, under its own narrow permissions."""

import asyncio

import pytest

from fleet_events import v1
from fleet_kit.bus import Bus
from fleet_kit.cloudevents import seal
from fleet_kit.projection import follow

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
