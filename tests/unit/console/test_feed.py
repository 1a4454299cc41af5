"""The live feed: what a viewer is shown, and that nothing it admits is lost or shown twice."""

import asyncio
from datetime import UTC, datetime

import pytest

from fleet_events import Event, v1
from fleet_events.topology import DATA, FACTS
from fleet_kit.caller import Caller
from fleet_kit.cloudevents import Envelope
from services.console.feed import Feed, FeedFilter, Shown, trace_of

pytestmark = pytest.mark.unit
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def caller(*domains: str) -> Caller:
    return Caller("ann", frozenset({"adapters:read"}), frozenset(domains))


def rejected(adapter_id: str, domain: str) -> Event:
    return v1.Rejected(adapter_id=adapter_id, family=f"{domain}-lora", domain=domain, by="ann", reason="r")


def envelope(id: str) -> Envelope:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    return Envelope(id, "t", "lorafleet/registry", datetime.now(UTC), "shop-lora-v1.0.0", headers)


async def add(feed: Feed, *ids: str, event: Event | None = None, stream: str = FACTS.name) -> None:
    for id in ids:
        await feed.add(stream, event or rejected(f"a-{id}", "shop"), envelope(id))


async def take(feed: Feed, wanted: FeedFilter, after: int, most: int) -> list[Shown | int]:
    found: list[Shown | int] = []
    async for one in feed.after(after, wanted, every=0.05):
        if isinstance(one, int) and one >= 0:
            break
        found.append(one)
        if len(found) == most:
            break
    return found


async def test_a_viewer_sees_the_events_of_their_domains_alone() -> None:
    feed = Feed(10, 1)
    await add(feed, "one")
    await add(feed, "two", event=rejected("b", "law"))
    shown = feed.newest(FeedFilter(caller("law")), 10)
    assert [one.id for one in shown] == ["two"]
    assert len(feed.newest(FeedFilter(caller("*")), 10)) == 2


async def test_an_event_of_no_domain_is_shown_only_to_those_who_reach_every_one() -> None:
    feed = Feed(10, 1)
    await add(feed, "one", event=v1.ApiKeyRevoked(key_id="0123456789abcdef", by="ann"))
    assert feed.newest(FeedFilter(caller("shop")), 10) == []
    assert [one.type for one in feed.newest(FeedFilter(caller("*")), 10)] == ["ApiKeyRevoked"]


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        ({"type": "Rejected"}, True),
        ({"type": "Approved"}, False),
        ({"domain": "shop"}, True),
        ({"domain": "law"}, False),
        ({"text": "shop-lora"}, True),
        ({"text": TRACE}, True),
        ({"text": "law-lora"}, False),
    ],
)
async def test_a_filter_admits_what_fits_all_of_it(wanted: dict[str, str], admitted: bool) -> None:
    feed = Feed(10, 1)
    await add(feed, "one")
    assert bool(feed.newest(FeedFilter(caller("*"), **wanted), 10)) == admitted


async def test_what_comes_while_a_viewer_waits_reaches_them_in_order_and_once() -> None:
    feed = Feed(100, 1)
    await add(feed, "0")
    waiting = asyncio.create_task(take(feed, FeedFilter(caller("*")), feed.place, 3))
    await asyncio.sleep(0)
    await add(feed, "1", "2", "2", "1", "3")
    found = await waiting
    assert [one.id for one in found if isinstance(one, Shown)] == ["1", "2", "3"]


async def test_a_viewer_who_fell_behind_what_is_kept_is_told_how_many_are_missing() -> None:
    feed = Feed(3, 1)
    await add(feed, *map(str, range(10)))
    first, *rest = await take(feed, FeedFilter(caller("*")), 2, 4)
    assert first == -5  # 3 to 7 are gone, 8 to 10 are there
    assert [one.number for one in rest if isinstance(one, Shown)] == [8, 9, 10]


async def test_an_event_read_again_after_a_lost_connection_is_not_shown_again_though_it_is_no_longer_kept() -> None:
    feed = Feed(3, 1)
    await add(feed, *map(str, range(5)))
    await add(feed, "0", "4")
    assert feed.place == 5


async def test_what_people_wrote_is_named_and_not_shown() -> None:
    feed = Feed(3, 1)
    await add(feed, "one", stream=DATA.name, event=v1.SampleRecorded(domain="shop", prompt="secret", completion="c"))
    (shown,) = feed.newest(FeedFilter(caller("*")), 10)
    assert (shown.type, shown.body) == ("SampleRecorded", "")


async def test_a_busy_stream_names_its_place_too_so_that_its_token_is_checked() -> None:
    feed = Feed(10, 1)
    stop = asyncio.Event()

    async def busy() -> None:
        while not stop.is_set():
            await add(feed, str(feed.place))
            await asyncio.sleep(0)

    writing = asyncio.create_task(busy())
    async with asyncio.timeout(5):
        async for one in feed.after(0, FeedFilter(caller("law")), every=0.05):
            if isinstance(one, int) and one >= 0:
                break
    stop.set()
    await writing
    assert feed.place > 1


async def test_an_answer_of_a_mix_is_shown_only_to_those_who_reach_every_domain() -> None:
    mix = [v1.WeightedAdapter(adapter_id=one, weight=0.5, artifact_sha256="0" * 64) for one in ("shop-a", "law-b")]
    event = v1.GenerationCompleted(generation_id="g", domain="shop", base_model="m", adapter_id="shop-a", mix=mix)
    feed = Feed(3, 1)
    await add(feed, "one", event=event)
    assert feed.newest(FeedFilter(caller("shop")), 10) == []
    assert len(feed.newest(FeedFilter(caller("*")), 10)) == 1


async def test_a_long_body_is_cut_for_memory_and_viewers() -> None:
    feed = Feed(3, 1)
    await add(feed, "one", event=v1.Rejected(adapter_id="a", family="f", domain="shop", by="ann", reason="ü" * 50_000))
    (shown,) = feed.newest(FeedFilter(caller("*")), 10)
    assert len(shown.body.encode()) < 17_000


def test_a_trace_is_read_from_its_header_and_a_broken_header_is_none() -> None:
    assert trace_of({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}) == TRACE
    assert trace_of({"traceparent": "nonsense"}) == trace_of({}) == ""
