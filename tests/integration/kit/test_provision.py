"""Streams, durables and buckets come from the topology; drift is reported and mended."""

import pytest
from nats.js import JetStreamContext
from nats.js.api import DeliverPolicy, DiscardPolicy, StoreCompression

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_events.buckets import REPLICAS
from fleet_events.topology import SERVING, TOPOLOGY, durable_name, row_of
from fleet_kit.provision import bucket_config, consumer_config, provision
from tests.conftest import empty_bus

# Tests before these may have changed durables.
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("module_database")]
ROW = next(row for row in TOPOLOGY if row.consumed_by)


async def test_every_row_of_the_topology_has_its_durable(jetstream) -> None:
    assert await provision(jetstream) == []
    for row in TOPOLOGY:
        for consumer in row.consumed_by:
            found = await jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
            assert found.config.filter_subject == row.subject
            assert found.config.ack_wait == consumer.ack_wait.total_seconds()


async def test_drift_is_reported_without_being_changed_and_then_mended(jetstream) -> None:
    row = next(row for row in TOPOLOGY if row.consumed_by)
    wanted = consumer_config(row.consumed_by[0], row)
    await jetstream.add_consumer(row.stream.name, wanted.evolve(ack_wait=77.0))
    found = await provision(jetstream, repair=False)
    message = f"{wanted.name}: ack_wait is 77.0, the topology has {wanted.ack_wait}"
    assert [str(drift) for drift in found] == [f"{message}; `lorafleet provision` sets it"]
    assert [(str(drift), drift.mended) for drift in await provision(jetstream)] == [(message, True)]
    assert await provision(jetstream, repair=False) == []


async def test_a_missing_durable_is_drift_when_only_looking(jetstream) -> None:
    row = next(row for row in TOPOLOGY if row.consumed_by)
    name = durable_name(row.consumed_by[0], row)
    await jetstream.delete_consumer(row.stream.name, name)
    assert [drift.name for drift in await provision(jetstream, repair=False)] == [name]
    await provision(jetstream)
    assert (await jetstream.consumer_info(row.stream.name, name)).name == name


async def test_a_bucket_whose_values_would_live_too_long_is_drift_and_is_mended(jetstream) -> None:
    wanted = bucket_config(REPLICAS)
    await jetstream.update_stream(wanted.evolve(max_age=77.0))
    found = await provision(jetstream, repair=False)
    message = f"{wanted.name}: max_age is 77.0, the topology has {wanted.max_age}; `lorafleet provision` sets it"
    assert [str(drift) for drift in found] == [message]
    await provision(jetstream)
    assert await provision(jetstream, repair=False) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_msgs", 1000),
        ("max_msg_size", 1024),
        ("max_msgs_per_subject", 7),
        ("max_bytes", 1024**2),
        ("max_age", 600.0),
        ("discard", DiscardPolicy.OLD),
        ("duplicate_window", 10.0),
        ("allow_direct", False),
        ("allow_rollup_hdrs", True),
        ("no_ack", True),
        ("subjects", ["lorafleet.v1.serving.>"]),
    ],
)
async def test_a_limit_of_a_stream_that_an_operator_changed_is_drift_and_is_mended(
    jetstream: JetStreamContext, setting: str, value: object
) -> None:
    config = (await jetstream.stream_info(SERVING.name)).config
    await jetstream.update_stream(config.evolve(**{setting: value}))
    found = await provision(jetstream, repair=False)
    assert [(one.name, one.setting, one.mended) for one in found] == [(SERVING.name, setting, False)]
    assert [(one.setting, one.mended) for one in await provision(jetstream)] == [(setting, True)]
    assert await provision(jetstream, repair=False) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_deliver", 3),
        ("max_ack_pending", 1),
        ("backoff", [1.0, 2.0]),
        ("headers_only", True),
        ("sample_freq", "50%"),
    ],
)
async def test_a_limit_of_a_durable_that_an_operator_changed_is_drift_and_is_mended(
    jetstream: JetStreamContext, setting: str, value: object
) -> None:
    wanted = consumer_config(ROW.consumed_by[0], ROW)
    config = (await jetstream.consumer_info(ROW.stream.name, wanted.name)).config
    # A durable with a backoff waits as long as that says.
    await jetstream.add_consumer(ROW.stream.name, config.evolve(**{setting: value, "max_deliver": 3}))
    found = {one.setting for one in await provision(jetstream, repair=False)}
    assert setting in found
    assert {one.setting for one in await provision(jetstream) if one.mended} == found
    assert await provision(jetstream, repair=False) == []


async def test_the_training_queue_of_an_earlier_release_is_drift_and_keeps_its_messages(
    jetstream: JetStreamContext, servers: Fleet
) -> None:
    row = row_of(v1.TrainingQueued)
    wanted = consumer_config(row.consumed_by[0], row)
    name, stream = str(wanted.name), row.stream.name
    await jetstream.add_consumer(stream, wanted.evolve(max_ack_pending=10_000))
    for number in range(100):
        body = v1.TrainingQueued(job_id=f"old-{number}", domain="shop").to_json()
        await jetstream.publish(row.subject, body, headers={"ce-id": f"old-{number}"})
    taker = await jetstream.pull_subscribe_bind(durable=name, stream=stream)
    for waiting in await taker.fetch(100, timeout=5):
        await waiting.nak(delay=1)  # as jobs did that gave way to others
    (found,) = await provision(jetstream, repair=False)
    message = f"{name}: max_ack_pending is 10000, the topology has {wanted.max_ack_pending}"
    assert str(found) == f"{message}; `lorafleet provision` sets it"
    assert [one.mended for one in await provision(jetstream)] == [True]
    taken: set[int] = set()
    while len(taken) < 100:
        for one in await taker.fetch(10, timeout=5):
            await one.ack_sync()
            taken.add(one.metadata.sequence.stream)
    assert (await jetstream.consumer_info(stream, name)).num_ack_pending == 0
    await taker.unsubscribe()
    await empty_bus(servers)


async def test_what_the_server_does_not_let_be_changed_is_told_with_what_to_do_and_the_rest_is_mended(
    jetstream: JetStreamContext, servers: Fleet
) -> None:
    wanted = consumer_config(ROW.consumed_by[0], ROW)
    name = str(wanted.name)
    await jetstream.delete_consumer(ROW.stream.name, name)
    strange = wanted.evolve(deliver_policy=DeliverPolicy.NEW, ack_wait=77.0)
    await jetstream.add_consumer(ROW.stream.name, strange)
    config = (await jetstream.stream_info(SERVING.name)).config
    await jetstream.update_stream(config.evolve(deny_purge=True, max_bytes=1024**2))
    try:
        found = {(one.name, one.setting): one for one in await provision(jetstream)}
        assert {key for key, one in found.items() if one.mended} == {(name, "ack_wait"), (SERVING.name, "max_bytes")}
        policy, purge = str(found[name, "deliver_policy"]), str(found[SERVING.name, "deny_purge"])
        assert (
            "deliver_policy is 'new', the topology has 'all'; the server refuses the change (deliver policy" in policy
        )
        assert f"`nats consumer rm {ROW.stream.name} {name}`" in policy
        assert "deny_purge is True, the topology has False; the server refuses the change (" in purge
        assert f"`nats stream backup {SERVING.name} FOLDER`" in purge
        await jetstream.delete_consumer(ROW.stream.name, name)
        await jetstream.delete_stream(SERVING.name)
        assert await provision(jetstream) == []  # as the remedies say
        assert await provision(jetstream, repair=False) == []
    finally:
        await empty_bus(servers)


async def test_what_is_the_operators_to_set_is_no_drift_and_stays(jetstream: JetStreamContext) -> None:
    config = (await jetstream.stream_info(SERVING.name)).config
    await jetstream.update_stream(config.evolve(description="ours", compression=StoreCompression.S2))
    assert await provision(jetstream, repair=False) == []
    await jetstream.update_stream((await jetstream.stream_info(SERVING.name)).config.evolve(max_bytes=1024**2))
    await provision(jetstream)
    kept = (await jetstream.stream_info(SERVING.name)).config
    assert (kept.description, kept.compression, kept.max_bytes) == ("ours", StoreCompression.S2, SERVING.max_bytes)
