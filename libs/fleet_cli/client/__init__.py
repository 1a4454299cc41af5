"""Typed Python client of the fleet's HTTP services, async and sync.

    with FleetClient(FleetHome.find()) as fleet:
        adapter = fleet.call(calls.adapter("verwaltungsrecht-lora-v1.0.0"))

    async with AsyncFleetClient(FleetHome.find()) as fleet:
        adapter = await fleet.call(calls.adapter("verwaltungsrecht-lora-v1.0.0"))

Each endpoint is one function of `calls`, which returns a `Call[T]`; both clients carry any of them out.
Every error is a `FleetError`.
"""

from fleet_cli.client import calls
from fleet_cli.client.clients import AsyncFleetClient, Call, FleetClient
from fleet_cli.client.errors import BadInput, ExitCode, FleetError, ServiceError, Unreachable
from fleet_cli.client.home import FleetHome

__all__ = [
    "AsyncFleetClient",
    "BadInput",
    "Call",
    "ExitCode",
    "FleetClient",
    "FleetError",
    "FleetHome",
    "ServiceError",
    "Unreachable",
    "calls",
]
