"""The whole fleet on a cluster of three nats-servers that loses its leaders under load."""

import asyncio
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client

from fleet_cli.stack import Fleet
from fleet_cli.stack.bus import ErrorCallback
from fleet_events.topology import STREAMS
from tests.e2e.chaos_round import SERVICES, run_round, undisturbed
from tests.e2e.tiny_fleet import use_tiny_model
from tests.nats_cluster import NatsCluster

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
DEAD_SECONDS = 5.0
"""For which a killed server stays away: others have to lead."""


class ClusteredFleet(Fleet):
    """A fleet whose services and clients use a cluster in place of its own nats-server."""

    cluster: NatsCluster

    async def connect_nats(self, user: str, error_cb: ErrorCallback | None = None) -> Client:
        return await self.cluster.connect(user, error_cb)

    def move_to(self, cluster: NatsCluster) -> None:
        """Restart the services on the cluster's servers."""
        self.cluster = cluster
        for name in SERVICES:
            part = self.part(name)
            part.stop()
            environment = {**part.command.environment, "LORAFLEET_NATS_URL": ",".join(cluster.urls)}
            part.command = replace(part.command, environment=environment)
            part.start()
        self.wait_ready(90)


async def lose_leaders(cluster: NatsCluster, client: Client, times: int) -> Counter[str]:
    """Kill whoever leads the one stream or the other, and start it again."""
    killed = Counter[str]()
    for number in range(times):
        await asyncio.sleep(4)
        name = await cluster.leader(client, STREAMS[number % len(STREAMS)].name)
        if name:
            await asyncio.to_thread(cluster.servers[name].crash)
            killed[name] += 1
            await asyncio.sleep(DEAD_SECONDS)
            await asyncio.to_thread(cluster.start, name)
    return killed


async def test_a_cluster_that_loses_its_leaders_under_load_loses_and_doubles_nothing(
    tmp_path: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_model(tmp_path / "models", base_model, monkeypatch)
    with ClusteredFleet(tmp_path / "home") as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        cluster = NatsCluster(tmp_path / "cluster", fleet.credentials)
        try:
            await asyncio.to_thread(cluster.start)
            await cluster.provision()
            await asyncio.to_thread(fleet.move_to, cluster)
            expected = await undisturbed(fleet, "calm")
            client = await cluster.connect("admin")
            found = await run_round(fleet, "leaders", expected, partial(lose_leaders, cluster, client, 8))
            await client.close()
            with capsys.disabled():
                print(found, file=sys.stderr)
        finally:
            await asyncio.to_thread(cluster.stop)
    assert found.is_clean, found.notes
    assert sum(found.kills.values()) >= 6
    assert found.seconds_until_ready < 30
