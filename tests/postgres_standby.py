"""A standby of the fleet's PostgreSQL: a real server that streams from the primary, and takes over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from fleet_cli.stack import Fleet
from fleet_cli.stack.environment import FleetInfo
from fleet_cli.stack.ports import LOOPBACK, choose
from fleet_cli.stack.postgres import postgres_url
from fleet_cli.stack.process import Supervised
from fleet_cli.stack.programs import postgres_bin


def with_standby(url: str, port: int) -> str:
    """The address of a primary with a standby's beside it."""
    parts = urlsplit(url)
    return urlunsplit(
        parts._replace(
            netloc=f"{parts.netloc},{LOOPBACK}:{port}", query=f"{parts.query}&target_session_attrs=read-write"
        )
    )


class Standby:
    """A copy of a running fleet's database that follows it, synchronously: a commit waits until it has it."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        self.port = choose(("standby",), {})["standby"]
        self._primary = fleet.part("postgres")
        self._server: Supervised | None = None

    def start(self) -> None:
        """Copy the primary, follow it, and have its commits wait for this copy."""
        password = self._fleet.credentials.postgres["postgres"]
        self._folder.mkdir(parents=True)
        arguments = [
            "-h",
            LOOPBACK,
            "-p",
            str(self._fleet.ports["postgres"]),
            "-U",
            "postgres",
            "-D",
            str(self._folder),
        ]
        subprocess.run(
            [str(postgres_bin() / "pg_basebackup"), *arguments, "--write-recovery-conf", "--checkpoint=fast"],
            env={**os.environ, "PGPASSWORD": password},
            check=True,
        )
        command = self._primary.command
        self._folder.chmod(0o700)
        if command.owner is not None:
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, *command.owner, follow_symlinks=False)
        at = command.arguments.index("-D")
        settings = command.arguments[at + 4 :]
        command = replace(
            command,
            arguments=(command.arguments[0], "-D", str(self._folder), "-p", str(self.port), *settings),
            folder=self._folder,
            stop_signal=signal.SIGINT,
        )
        self._server = Supervised("standby", command, logs=self._fleet.home.logs, run=self._fleet.home.run)
        self._server.start()
        asyncio.run(self._follow())

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.stop()

    async def take_over(self) -> None:
        """Become the primary, as whoever watches over both would have it."""
        connection = await self._connect(self.port)
        assert await connection.fetchval("select pg_promote()")
        await connection.close()

    async def _follow(self) -> None:
        primary = await self._connect(self._fleet.ports["postgres"])
        try:
            await primary.execute("alter system set synchronous_standby_names = '*'")
            await primary.execute("select pg_reload_conf()")
            deadline = time.monotonic() + 30
            while await primary.fetchval("select sync_state from pg_stat_replication") != "sync":
                if time.monotonic() > deadline:
                    raise TimeoutError(self._server.tail() if self._server else "")
                await asyncio.sleep(0.1)
        finally:
            await primary.close()

    async def _connect(self, port: int) -> asyncpg.Connection[asyncpg.Record]:
        url = postgres_url("postgres", self._fleet.credentials.postgres["postgres"], port)
        return await asyncpg.connect(url, timeout=10)


class FleetWithStandby(Fleet):
    """A fleet whose services know a primary and a standby."""

    standby: Standby | None = None

    @property
    def info(self) -> FleetInfo:
        found = super().info
        return (
            found
            if self.standby is None
            else replace(found, database_admin_url=with_standby(found.database_admin_url, self.standby.port))
        )

    def add_standby(self, services: tuple[str, ...]) -> None:
        """Start a standby, and restart the services with both addresses."""
        self.standby = Standby(self, self.home.root / "standby")
        self.standby.start()
        for name in services:
            part = self.part(name)
            environment = dict(part.command.environment)
            if (url := environment.get("LORAFLEET_DATABASE_URL")) is not None:
                part.stop()
                environment["LORAFLEET_DATABASE_URL"] = with_standby(url, self.standby.port)
                part.command = replace(part.command, environment=environment)
                part.start()
        self.wait_ready(90)

    def lose_primary(self) -> None:
        """Kill the primary for good: its machine is gone."""
        self._parts.pop("postgres").crash()

    def stop(self) -> None:
        super().stop()
        if self.standby is not None:
            with suppress(OSError):
                self.standby.stop()
