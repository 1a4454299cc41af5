"""The command line's side of the bus: names of events, errors in one line, the same message for `nats pub`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from shlex import quote
from typing import TypeVar

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from fleet_events import Event
from fleet_kit.cloudevents import Outgoing
from fleet_kit.nats_auth import inbox_prefix
from lorafleet.bus import EVENTS
from lorafleet.errors import BadInput, FleetError

Value = TypeVar("Value")


def run_on_bus(work: Callable[[], Awaitable[Value]]) -> Value:
    """Run a coroutine from a command; JetStream's errors become `FleetError`s."""

    async def main() -> Value:
        return await work()

    try:
        return asyncio.run(main())
    except APIError as error:
        raise FleetError(f"JetStream refused: {error.description or error} (was `lorafleet provision` run?)") from error
    except NatsError as error:
        raise FleetError(f"NATS: {error or type(error).__name__}") from error


def event_type(name: str, option: str = "TYPE") -> type[Event]:
    """The event class of a short or full name, in any of the usual spellings; raises `BadInput`."""
    wanted = re.sub(r"[^a-z]", "", name.rpartition(".")[2].lower())
    for known, event in EVENTS.items():
        if known.lower() == wanted:
            return event
    raise BadInput(option, f"unknown event {name!r}; expected one of {', '.join(sorted(EVENTS))}")


def as_nats_pub(message: Outgoing, url: str, seed: Path | None, ca_file: Path | None = None) -> str:
    """The same message as a `nats pub` command that waits for the acknowledgement, as the user whose nkey is `seed`."""
    user = ["--nkey", str(seed), "--inbox-prefix", inbox_prefix("upstream")] if seed else []
    user += ["--tlsca", str(ca_file)] if ca_file else []
    begin = " ".join(["nats pub --jetstream -s", *map(quote, [url, *user]), message.subject])
    headers = " \\\n  ".join(f"-H {quote(f'{name}: {value}')}" for name, value in message.headers.items())
    # `nats pub` takes a body for a template of Go.
    body = message.body.decode().replace("{{", '{{"{{"}}')
    return f"{begin} \\\n  {headers} \\\n  {quote(body)}"
