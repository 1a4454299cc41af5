"""A service made of the kit alone, in this process, on the real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import APIRouter
from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_events.topology import consumers_of, durable_name
from fleet_kit.handlers import Handlers
from fleet_kit.service import Service, create_app
from fleet_kit.settings import ServiceSettings

Run = Callable[..., AbstractAsyncContextManager[Service[Any, Any]]]


@pytest.fixture
def settings_of(service_env: Callable[..., dict[str, str]]) -> Callable[..., ServiceSettings]:
    """Settings of a service on the real servers."""

    def settings(name: str, **changes: object) -> ServiceSettings:
        values = {
            key.removeprefix("LORAFLEET_").lower(): value
            for key, value in service_env(name).items()
            if key.startswith("LORAFLEET_")
        }
        return ServiceSettings.model_validate(values | changes)

    return settings


@pytest.fixture
def run_kit(settings_of: Callable[..., ServiceSettings]) -> Run:
    """`async with run_kit(handlers) as service:` listens with these handlers under their service's name."""

    @asynccontextmanager
    async def run(handlers: Handlers[Any], **changes: object) -> AsyncIterator[Service[Any, Any]]:
        app = create_app(handlers.service, settings_of(handlers.service, **changes), handlers=handlers, api=APIRouter())
        async with app.router.lifespan_context(app):
            service: Service[Any, Any] = app.state.service
            async with asyncio.timeout(20):
                while service.relay is None:
                    await asyncio.sleep(0.01)
            yield service

    return run


@dataclass(frozen=True)
class Durable:
    """How far a service's durable is."""

    deliveries: int
    """Ever made, redeliveries included."""
    idle: bool
    """Nothing is left to deliver, and everything delivered is acknowledged."""


async def durable_of(jetstream: JetStreamContext, service: str, event: type[Event]) -> Durable:
    """The state of the durable under which a service consumes an event."""
    [(row, consumer)] = [(row, one) for row, one in consumers_of(service) if row.event is event]
    info = await jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
    assert info.delivered is not None
    return Durable(info.delivered.consumer_seq, info.num_pending == 0 and info.num_ack_pending == 0)


async def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait until a condition (plain or async) holds."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    """`await eventually(lambda: ...)`."""
    return eventually
