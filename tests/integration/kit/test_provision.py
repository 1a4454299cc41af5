"""Streams, durables and buckets come from the topology; drift is reported and mended."""

import pytest

from fleet_events.topology import REPLICAS, TOPOLOGY, durable_name
from fleet_kit.provision import bucket_config, consumer_config, provision

pytestmark = pytest.mark.integration


async def test_every_row_of_the_topology_has_its_durable(jetstream) -> None:
    assert await provision(jetstream) == []
    for row in TOPOLOGY:
        for consumer in row.heard_by:
            found = await jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
            assert found.config.filter_subject == row.subject
            assert found.config.ack_wait == consumer.ack_wait.total_seconds()


async def test_drift_is_reported_without_being_changed_and_then_mended(jetstream) -> None:
    row = next(row for row in TOPOLOGY if row.heard_by)
    wanted = consumer_config(row.heard_by[0], row)
    await jetstream.add_consumer(row.stream.name, wanted.evolve(ack_wait=77.0))
    found = await provision(jetstream, repair=False)
    assert [str(drift) for drift in found] == [f"{wanted.name}: ack_wait is 77.0, the topology says {wanted.ack_wait}"]
    assert len(await provision(jetstream)) == 1
    assert await provision(jetstream, repair=False) == []


async def test_a_missing_durable_is_drift_when_only_looking(jetstream) -> None:
    row = next(row for row in TOPOLOGY if row.heard_by)
    name = durable_name(row.heard_by[0], row)
    await jetstream.delete_consumer(row.stream.name, name)
    assert [drift.name for drift in await provision(jetstream, repair=False)] == [name]
    await provision(jetstream)
    assert (await jetstream.consumer_info(row.stream.name, name)).name == name


async def test_a_bucket_whose_values_would_live_too_long_is_drift_and_is_mended(jetstream) -> None:
    wanted = bucket_config(REPLICAS)
    await jetstream.update_stream(wanted.evolve(max_age=77.0))
    found = await provision(jetstream, repair=False)
    assert [str(drift) for drift in found] == [f"{wanted.name}: max_age is 77.0, the topology says {wanted.max_age}"]
    await provision(jetstream)
    assert await provision(jetstream, repair=False) == []
