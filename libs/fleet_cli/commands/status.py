"""`lorafleet status`: the health of every part of the fleet."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx
import typer

from fleet_cli.bus import run_on_bus
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from fleet_events.topology import STREAMS
from fleet_kit import dead_letters
from lorafleet import bus
from lorafleet.errors import ExitCode, FleetError
from lorafleet.home import SERVICES


@dataclass(frozen=True)
class Health:
    """One part's state: up, not ready, or down, and why."""

    part: str
    url: str
    state: str
    detail: str = ""
    milliseconds: float | None = None


def service_health(session: Session, service: str) -> Health:
    """A service by its /readyz (a JetStream round trip and its database)."""
    try:
        url = session.home.service_url(service)
    except FleetError as fault:
        return Health(service, "", "unknown", str(fault))
    began = time.monotonic()
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, verify=session.home.trust)
    except httpx.HTTPError as error:
        return Health(service, url, "down", str(error) or type(error).__name__)
    took = round(1000 * (time.monotonic() - began), 1)
    if answer.is_success:
        return Health(service, url, "ready", "", took)
    return Health(service, url, "not ready", _reason(answer), took)


def _reason(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:200]
    if not isinstance(body, dict):
        return str(body)
    checks = body.get("checks")
    if isinstance(checks, dict):
        return ", ".join(f"{name}: {found}" for name, found in checks.items() if found != "ok")
    return str(body.get("detail") or body)


def nats_health(session: Session) -> Health:
    """NATS by its streams of events."""
    try:
        url = session.home.nats_url
    except FleetError as fault:
        return Health("nats", "", "unknown", str(fault))

    async def count() -> str:
        async with bus.connect(session.home) as client:
            js = client.jetstream()
            events = sum([(await js.stream_info(stream.name)).state.messages for stream in STREAMS])
            return f"{events} events, {await dead_letters.count(js)} dead letters"

    began = time.monotonic()
    try:
        detail = run_on_bus(count)
    except FleetError as fault:
        return Health("nats", url, "down", str(fault))
    return Health("nats", url, "ready", detail, round(1000 * (time.monotonic() - began), 1))


def storage_health(session: Session) -> Health:
    """The object store by its port: its keys belong to the services."""
    url = session.home.file.s3_endpoint
    if not url:
        return Health("s3", "", "unknown", "fleet.json names no object store")
    try:
        httpx.get(url, timeout=5, verify=session.home.trust)
    except httpx.HTTPError as error:
        return Health("s3", url, "down", str(error) or type(error).__name__)
    return Health("s3", url, "up")


def add(root: CommandGroup) -> None:
    """Add `status` to the root."""

    @root.command("status")
    def status(session: Session) -> None:
        """Show the health of every part; exit code 1 unless all are ready."""
        parts = [nats_health(session), storage_health(session)]
        parts += [service_health(session, service) for service in SERVICES]
        rows = [
            (
                one.part,
                one.state,
                one.url,
                None if one.milliseconds is None else f"{one.milliseconds:.0f} ms",
                one.detail,
            )
            for one in parts
        ]
        session.answer([vars(one) for one in parts], table(("PART", "STATE", "ADDRESS", "ANSWERED IN", "DETAIL"), rows))
        if any(one.state not in ("ready", "up") for one in parts):
            raise typer.Exit(ExitCode.FAILED)
