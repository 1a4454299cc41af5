"""Python client of a fleet: its HTTP services, sync and async, and its events. docs/sdk.md has examples.

    with FleetClient(FleetHome.find()) as fleet:
        adapter = fleet.call(calls.adapter("verwaltungsrecht-lora-v1.0.0"))

    async with EventBus(FleetHome.find()) as bus:
        await bus.publish(events.SampleRecorded(domain="shop", prompt="…", completion="…"))

Each endpoint is one function of `calls`, which returns a `Call[T]`; `FleetClient` and `AsyncFleetClient` carry any of
them out. Every error is a `FleetError`.
"""

from fleet_events import v1 as events
from lorafleet import calls, responses
from lorafleet.bus import Position, Received
from lorafleet.clients import AsyncFleetClient, Call, FleetClient
from lorafleet.errors import BadInput, ExitCode, FleetError, ServiceError, Unreachable
from lorafleet.event_bus import EventBus
from lorafleet.home import FleetHome

__all__ = [
    "AsyncFleetClient",
    "BadInput",
    "Call",
    "EventBus",
    "ExitCode",
    "FleetClient",
    "FleetError",
    "FleetHome",
    "Position",
    "Received",
    "ServiceError",
    "Unreachable",
    "calls",
    "events",
    "responses",
]
