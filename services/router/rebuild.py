"""Rebuilds the routing index from the stream, which is its only source."""

import asyncio

from fleet_events import Event
from fleet_events.topology import followed_by
from fleet_events.v1 import AdapterActivated, AdapterDeactivated
from fleet_kit import tasks
from fleet_kit.cloudevents import Envelope
from fleet_kit.projection import follow
from services.router import domain, index, store
from services.router.domain import Route
from services.router.parts import RouterService

DEADLINE = 60.0
FOLLOWED = followed_by("router")


async def rebuild(service: RouterService) -> int:
    """Replaces the index by what the stream holds; returns how many adapters are routed to.

    Handlers wait meanwhile: what they get during the replay is in the replay too, or comes after it. Queries see
    the old index until the new one is committed. Raises TimeoutError if the stream is not read in time.
    """
    async with service.db.acquire() as connection, connection.transaction():
        await store.lock_index(connection)
        async with asyncio.timeout(DEADLINE):
            routes = await _replay(service)
        return await index.replace_all(connection, service.parts.learning, routes)


async def _replay(service: RouterService) -> dict[str, Route]:
    routes: dict[str, Route] = {}

    async def apply(event: Event, _envelope: Envelope) -> None:
        nonlocal routes
        if isinstance(event, AdapterActivated | AdapterDeactivated):
            routes = domain.apply(routes, event)

    caught_up = asyncio.Event()
    following = asyncio.create_task(
        follow(
            service.jetstream,
            FOLLOWED.subjects,
            FOLLOWED.events,
            apply,
            caught_up,
        )
    )
    reached = asyncio.create_task(caught_up.wait())
    try:
        await asyncio.wait({following, reached}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        await tasks.end(following, reached)
    return routes
