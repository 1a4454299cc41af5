"""Events that the router consumes."""

from fleet_events.v1 import AdapterActivated, AdapterDeactivated
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction
from services.router import index
from services.router.parts import RouterService

handlers: Handlers[RouterService] = Handlers("router")


@handlers.on(AdapterActivated)
async def route_to(event: AdapterActivated, tx: Transaction, service: RouterService) -> None:
    await index.activate(tx.connection, service.parts.learning, event)


@handlers.on(AdapterDeactivated)
async def route_no_more(event: AdapterDeactivated, tx: Transaction, _service: RouterService) -> None:
    await index.deactivate(tx.connection, event)
