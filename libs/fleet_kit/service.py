"""A running service: what it depends on, and how it starts and stops."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.request import getproxies

import httpx
import structlog
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_kit import dead_letter_api, http, outbox, tasks, telemetry
from fleet_kit.access_list import AccessList
from fleet_kit.access_rules import read_rules
from fleet_kit.acting_for import Credential
from fleet_kit.auth import Verifier
from fleet_kit.blobs import Blobs
from fleet_kit.bus import Bus
from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Pool, connect_pool, leaves_a_standby
from fleet_kit.handlers import Handlers
from fleet_kit.http_server import serve
from fleet_kit.own_dead_letters import OwnDeadLetters
from fleet_kit.readiness import Cached, write_database, write_stream
from fleet_kit.relay import Relay
from fleet_kit.settings import BusSettings, ServiceSettings
from fleet_kit.sockets import OPTIONS
from fleet_kit.stream_room import watch_room
from fleet_kit.transaction import Transaction

__all__ = ["Service", "create_app", "serve"]

log = structlog.get_logger()

S = TypeVar("S", bound=BusSettings)
P = TypeVar("P")


@dataclass
class Service(Generic[S, P]):
    """What handlers and endpoints work with. `parts` are the service's own, made by its app.py."""

    name: str
    settings: S
    bus: Bus
    object_store: Blobs | None
    http: httpx.AsyncClient
    """Calls other services, by itself without a token: see `credential`."""
    credential: Credential
    """This service's own token, which goes out only together with the domains that it is used for."""
    pool: Pool | None
    relay: Relay | None = None
    extra_checks: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    """Readiness checks that the service's parts add: name → a call that raises while not ready."""
    details: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What /readyz shows beside them: name → a call that gives it as JSON."""
    access: AccessList = field(init=False)
    """API keys and revoked tokens."""
    _parts: P | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.access = AccessList(self.name, skew=self.settings.clock_skew_seconds)
        self.extra_checks["access"] = self.access.ready

    @property
    def db(self) -> Pool:
        """The database pool; raises RuntimeError for a service that has none."""
        if self.pool is None:
            raise RuntimeError(f"{self.name} has no database")
        return self.pool

    @property
    def blobs(self) -> Blobs:
        """The object store; raises RuntimeError for a service that keeps no objects."""
        if self.object_store is None:
            raise RuntimeError(f"{self.name} keeps no objects")
        return self.object_store

    @property
    def parts(self) -> P:
        """The service's own parts; raises ConnectionError until they are open."""
        if self._parts is None:
            raise ConnectionError(f"{self.name} is still starting")
        return self._parts

    @property
    def started(self) -> bool:
        """Whether the service's own parts are open."""
        return self._parts is not None

    async def require_parts(self) -> None:
        """Readiness: raises ConnectionError until the service's own parts are open."""
        _ = self.parts

    async def open_parts(self, stack: contextlib.AsyncExitStack, parts: AbstractAsyncContextManager[P]) -> None:
        """Open the service's own parts; `stack` closes them."""
        self._parts = await stack.enter_async_context(parts)

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream; raises ConnectionError until connected."""
        return self.bus.jetstream

    @property
    def dead_letters(self) -> OwnDeadLetters:
        """What this service gave up; raises ConnectionError until it listens."""
        return self.bus.dead_letters

    @asynccontextmanager
    async def transaction(self, cause: Envelope | None = None) -> AsyncIterator[Transaction]:
        """A database transaction whose events go out once it is committed."""
        async with leaves_a_standby(self.db), self.db.acquire(timeout=5) as connection:
            async with connection.transaction():
                tx = Transaction(self.name, connection, cause)
                yield tx
                await tx.flush()
                if tx.emitted and (self.relay is None or not self.relay.leads):
                    await outbox.notify(connection, self.name)
            if tx.emitted and self.relay is not None:
                self.relay.wake()

    async def publish(self, event: Event, entity: str) -> None:
        """Publish an event without a database; raises unless JetStream acknowledges it."""
        await self.bus.publish(event, entity)


def create_app(
    name: str,
    settings: S,
    *,
    handlers: Handlers[Any] | None = None,
    api: APIRouter,
    parts: Callable[[Service[S, P]], AbstractAsyncContextManager[P]] | None = None,
    database: bool = True,
    public: Collection[str] = (),
) -> FastAPI:
    """Compose a service.

    Args:
        name: one of fleet_events.topology.SERVICES; also its schema, NATS user and key prefix.
        settings: its settings.
        handlers: the events it consumes durably.
        api: its endpoints.
        parts: makes what is the service's own (a model, an index) and takes it down again. Runs beside the
            HTTP server, so that a slow start shows as not ready instead of not alive.
        database: False for a service that owns nothing durable.
        public: paths that are answered without a token, beside those of every service.

    Raises:
        ValueError: settings lack what the service needs.
    """
    if database and not settings.database_url:
        raise ValueError(f"{name} needs LORAFLEET_DATABASE_URL, for example postgres://{name}:…@host:5432/lorafleet")
    rules = read_rules(settings.access_rules) if settings.access_rules else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(name, settings, handlers, parts, database=database) as service:
            app.state.service = service
            app.state.writes = _writes(service)
            app.state.verifier = Verifier(
                settings.jwks,
                settings.issuer,
                max_age=settings.jwks_max_age_seconds,
                keep=settings.jwks_keep_seconds,
                skew=settings.clock_skew_seconds,
                access=service.access,
                rules=rules,
                tls=settings.tls.client,
            )
            yield
        # Here and not after the server's end: uvicorn ends the process by the signal that it got.
        await asyncio.to_thread(telemetry.flush)

    # Requests are traced and measured by `http_front`, before FastAPI knows of them.
    untraced: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPI(title=f"Lorafleet {name}", version="1", lifespan=lifespan, telemetry=untraced)
    app.state.name = name
    http.install(
        app,
        settings,
        lambda: app.state.writes | app.state.service.extra_checks,
        lambda: {name: shown() for name, shown in app.state.service.details.items()},
        public,
    )
    app.include_router(api)
    if handlers is not None:
        app.include_router(dead_letter_api.router)
    return app


@asynccontextmanager
async def _running(
    name: str,
    settings: S,
    handlers: Handlers[Any] | None,
    parts: Callable[[Service[S, P]], AbstractAsyncContextManager[P]] | None,
    *,
    database: bool,
) -> AsyncIterator[Service[S, P]]:
    credential = Credential(settings.token_file.read_text().strip() if settings.token_file else "")
    pool = connect_pool(name, settings.database_address, settings.database_pool) if database else None
    if pool is not None:
        await pool  # opens no connection yet
    bus = Bus(name, settings)
    objects = Blobs(name, settings) if isinstance(settings, ServiceSettings) else None
    timeout = httpx.Timeout(120, connect=5)
    async with httpx.AsyncClient(timeout=timeout, verify=settings.tls.client, mounts=_watched(settings)) as client:
        service: Service[S, P] = Service(name, settings, bus, objects, client, credential, pool)
        if parts is not None:
            service.extra_checks["parts"] = service.require_parts
        started = asyncio.create_task(_or_end(_start(service, handlers, parts)))
        certificates = asyncio.create_task(settings.tls.watch())
        try:
            yield service
        finally:
            await tasks.end(started, certificates)
            await bus.stop()
            if pool is not None:
                pool.terminate()


def _watched(settings: BusSettings) -> dict[str, httpx.AsyncBaseTransport]:
    """What has the HTTP client notice that a host vanished under a long answer, unless it goes through a proxy."""
    if "all" in getproxies():  # it counts for every host, and a transport for every host would take its place
        return {}
    return {"all://": httpx.AsyncHTTPTransport(verify=settings.tls.client, socket_options=OPTIONS)}


async def _or_end(work: Coroutine[Any, Any, None]) -> None:
    """Work that the service cannot be without; its failure ends the process."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        # Nothing supervises this task from inside; the process ends and its supervisor starts it again.
        log.exception("service_task_failed")
        os.kill(os.getpid(), signal.SIGTERM)


async def _start(
    service: Service[S, P],
    handlers: Handlers[Any] | None,
    parts: Callable[[Service[S, P]], AbstractAsyncContextManager[P]] | None,
) -> None:
    """Connect, make the parts, listen, relay: in the background, until cancelled."""
    jetstream = await service.bus.connect()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(asyncio.create_task(watch_room(jetstream, service.name)).cancel)
        following = asyncio.create_task(_or_end(service.access.follow(jetstream, service.publish)))
        stack.push_async_callback(tasks.end, following)
        if parts is not None:
            await service.open_parts(stack, parts(service))
        # Libraries and parts stay as long as the process: a full collection that reads them all, too, stops
        # everything for 0.4 s in a service that imports torch.
        gc.freeze()
        if service.pool is None:
            await asyncio.Event().wait()
            return
        service.relay = Relay(service.name, service.pool, jetstream, lambda: service.bus.server_id)
        if handlers is not None:
            await service.bus.listen(handlers, service, service.transaction, service.pool)
        log.info("service_started")
        await service.relay.run()


def _writes(service: Service[Any, Any]) -> dict[str, Callable[[], Awaitable[None]]]:
    """A write to each server; made once, as the results are kept for some seconds."""
    checks: dict[str, Callable[[], Awaitable[None]]] = {
        "nats": Cached(lambda: write_stream(service.jetstream, service.name)),
        "rights": service.bus.rights.ready,
    }
    if service.object_store is not None:
        checks["s3"] = Cached(service.object_store.probe)
    if service.pool is not None:
        checks["database"] = Cached(lambda: write_database(service.db))
    return checks
