"""A fleet whose PostgreSQL has a synchronous standby, and whose services know both."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from fleet_cli.stack import Fleet
from fleet_cli.stack.environment import FleetInfo
from fleet_cli.stack.ports import LOOPBACK
from tests.standby import Standby, follow_synchronously, standby_of


def with_standby(url: str, port: int) -> str:
    """The address of a primary with a standby's beside it."""
    parts = urlsplit(url)
    query = f"{parts.query}&target_session_attrs=read-write"
    return urlunsplit(parts._replace(netloc=f"{parts.netloc},{LOOPBACK}:{port}", query=query))


class FleetWithStandby(Fleet):
    """The standby is there from `add_standby` on."""

    standby: Standby | None = None

    @property
    def info(self) -> FleetInfo:
        found = super().info
        if self.standby is None:
            return found
        return replace(found, database_admin_url=with_standby(found.database_admin_url, self.standby.port))

    def add_standby(self, services: tuple[str, ...]) -> None:
        """Start a standby, and restart the services with both addresses."""
        self._standing = ExitStack()
        standby = self._standing.enter_context(standby_of(self, self.home.root / "standby"))
        asyncio.run(follow_synchronously(self.info.database_admin_url))
        self.standby = standby
        for name in services:
            part = self.part(name)
            environment = dict(part.command.environment)
            if (url := environment.get("LORAFLEET_DATABASE_URL")) is not None:
                part.stop()
                environment["LORAFLEET_DATABASE_URL"] = with_standby(url, standby.port)
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
                self._standing.close()
