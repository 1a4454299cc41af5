"""A second PostgreSQL that follows that of a fleet by streaming replication and can take over."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from fleet_cli.stack import Fleet
from fleet_cli.stack.home import Home
from fleet_cli.stack.ports import LOOPBACK, choose
from fleet_cli.stack.postgres import postgres_command, postgres_ready, postgres_url
from fleet_cli.stack.process import Supervised
from fleet_cli.stack.programs import postgres_bin


@dataclass(frozen=True)
class Standby:
    """Its port, and a connection string of its administrator."""

    port: int
    admin_url: str

    async def promote(self) -> None:
        """Take over: from now on it takes writes."""
        connection = await asyncpg.connect(self.admin_url)
        try:
            assert await connection.fetchval("select pg_promote(true, 30)")
        finally:
            await connection.close()


async def follow_synchronously(primary_url: str) -> None:
    """Have the primary acknowledge only what the standby has: a takeover then loses nothing."""
    connection = await asyncpg.connect(primary_url)
    try:
        await connection.execute("alter system set synchronous_standby_names = '*'")
        await connection.execute("select pg_reload_conf()")
        deadline = time.monotonic() + 20
        while await connection.fetchval("select max(sync_state) from pg_stat_replication") != "sync":
            assert time.monotonic() < deadline, "the standby does not follow"
    finally:
        await connection.close()


@contextmanager
def standby_of(fleet: Fleet, folder: Path) -> Iterator[Standby]:
    """A standby that follows the fleet's PostgreSQL, from a base backup of it."""
    password, primary = fleet.credentials.postgres["postgres"], fleet.ports["postgres"]
    home = Home(folder)
    folder.mkdir()
    owner = fleet.home.postgres.stat()
    backup = [str(postgres_bin() / "pg_basebackup"), "--pgdata", str(home.postgres), "--write-recovery-conf"]
    source = f"host={LOOPBACK} port={primary} user=postgres password={password} sslmode=disable"
    subprocess.run([*backup, "--checkpoint=fast", "--dbname", source], check=True, timeout=60)
    for path in (home.postgres, *home.postgres.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    port = choose(("standby",), {})["standby"]
    command = postgres_command(home, port, password)
    server = Supervised("standby", command, logs=fleet.home.logs, run=fleet.home.run)
    server.start()
    try:
        deadline = time.monotonic() + 30
        while not postgres_ready(home, port):
            assert time.monotonic() < deadline, server.tail()
            time.sleep(0.05)
        yield Standby(port, postgres_url("postgres", password, port))
    finally:
        server.stop()
