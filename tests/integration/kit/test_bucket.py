"""A bucket on the real bus, with the rights of the service that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType
from nats.js.errors import NotFoundError

from fleet_cli.stack import Fleet
from fleet_events.buckets import BATCHES, REPLICAS, RESPONSES
from fleet_kit.key_value import KeyValue, WrittenMeanwhile

pytestmark = pytest.mark.integration


@pytest.fixture
async def bucket(servers: Fleet, jetstream: JetStreamContext) -> AsyncIterator[KeyValue]:
    await jetstream.purge_stream(f"KV_{REPLICAS.name}")  # replicas of tests before this one
    client = await servers.connect_nats("inference")
    yield KeyValue(client.jetstream(timeout=5), REPLICAS)
    await client.close()


async def test_a_watcher_receives_what_is_there_then_changes_and_removals(bucket: KeyValue) -> None:
    await bucket.put("a.host", b"1")
    await bucket.put("a.host", b"2")
    async with asyncio.timeout(5), aclosing(bucket.watch()) as changes:
        assert await anext(changes) == ("a.host", b"2")
        await bucket.put("b", b"3")
        assert await anext(changes) == ("b", b"3")
        await bucket.delete("b")
        assert await anext(changes) == ("b", None)


async def test_any_client_reads_it_as_a_key_value_store_with_the_ttl_of_the_topology(
    bucket: KeyValue, jetstream: JetStreamContext
) -> None:
    await bucket.put("once", b"there")
    seen = await jetstream.key_value(REPLICAS.name)
    assert (await seen.get("once")).value == b"there"
    status = await seen.status()
    assert (status.ttl, status.history) == (REPLICAS.ttl.total_seconds(), 1)


async def test_what_is_kept_is_on_disk_and_read_by_its_key_until_it_is_removed(
    servers: Fleet, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(RESPONSES.stream)).config
    assert (config.storage, config.discard) == (StorageType.FILE, DiscardPolicy.OLD)
    assert (config.max_bytes, config.max_age) == (RESPONSES.max_bytes, RESPONSES.ttl.total_seconds())
    client = await servers.connect_nats("inference")
    kept = KeyValue(client.jetstream(timeout=5), RESPONSES)
    assert await kept.get("gen-1") is None
    await kept.put("gen-1", b"first")
    await kept.put("gen-1", b"second")
    assert await kept.get("gen-1") == b"second"
    await kept.delete("gen-1")
    assert await kept.get("gen-1") is None
    held = [one async for one in _values(jetstream)]
    assert b"second" not in held
    await client.close()


async def test_a_listed_key_is_written_over_the_revision_that_was_read_and_over_no_other(servers: Fleet) -> None:
    client = await servers.connect_nats("inference")
    bucket = KeyValue(client.jetstream(timeout=5), BATCHES)
    first = await bucket.replace("kind.owner.a", b"1", 0)
    with pytest.raises(WrittenMeanwhile):
        await bucket.replace("kind.owner.a", b"2", 0)
    second = await bucket.replace("kind.owner.a", b"2", first)
    with pytest.raises(WrittenMeanwhile):
        await bucket.replace("kind.owner.a", b"3", first)
    found = await bucket.find("kind.owner.a")
    assert found is not None
    assert (found.value, found.revision) == (b"2", second)
    await bucket.replace("kind.owner.b", b"1", 0)
    await bucket.replace("kind.other.c", b"1", 0)
    assert await bucket.keys("kind.owner.*") == ["kind.owner.a", "kind.owner.b"]
    assert await bucket.keys("none.*.*") == []
    await client.close()


async def _values(jetstream: JetStreamContext) -> AsyncIterator[bytes | None]:
    """All that the stream below the bucket holds."""
    state = (await jetstream.stream_info(RESPONSES.stream)).state
    for sequence in range(state.first_seq, state.last_seq + 1):
        try:
            yield (await jetstream.get_msg(RESPONSES.stream, sequence)).data
        except NotFoundError:
            continue
