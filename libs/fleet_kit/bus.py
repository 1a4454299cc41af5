"""A service's connection to NATS, and what takes messages from its durables, made from its handlers.

FastStream connects, reconnects, and has the subscribers of long work; short work is taken many at a time by `intake`.
"""

import asyncio
import os
import signal
import socket
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from faststream.nats.security import NatsNKey, NatsSecurity
from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_kit import tasks
from fleet_kit.cloudevents import seal
from fleet_kit.db import Pool, connect_pool
from fleet_kit.delivery import Begin, Dispatcher
from fleet_kit.faults import describe
from fleet_kit.handlers import Binding, Handlers
from fleet_kit.intake import Intake
from fleet_kit.nats_auth import inbox_prefix
from fleet_kit.own_dead_letters import OwnDeadLetters
from fleet_kit.publishing import publish
from fleet_kit.rights import Rights
from fleet_kit.settings import BusSettings
from fleet_kit.tracing import trace_headers
from fleet_kit.turns import Turns

__all__ = ["Bus"]

log = structlog.get_logger()


class Bus:
    """Publishes and consumes events for one service process."""

    def __init__(self, service: str, settings: BusSettings) -> None:
        self._service = service
        self._settings = settings
        self.rights = Rights()
        self._holder = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        prefix = inbox_prefix(service)
        self._inbox = f"{prefix}.".encode()
        self._broker = NatsBroker(
            settings.nats_url.split(","),
            name=f"lorafleet-{service}",
            security=_security(settings),
            inbox_prefix=prefix,
            connect_timeout=2,
            reconnect_time_wait=1,
            max_reconnect_attempts=-1,
            ping_interval=5,  # two unanswered ones and a third: a server that vanished is left after 15 s
            graceful_timeout=5.0,
            error_cb=self._report,
            reconnected_cb=self._reconnected,
            apply_types=False,  # bodies are decoded by the contract, see cloudevents.open_envelope
            logger=None,
        )
        self._jetstream: JetStreamContext | None = None
        self._dispatcher: Dispatcher | None = None
        self._intakes: list[Intake] = []
        self._turns: asyncio.Task[None] | None = None
        self._dead_letters: OwnDeadLetters | None = None

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream, once connected; raises ConnectionError before."""
        if self._jetstream is None:
            raise ConnectionError("NATS is not connected yet")
        return self._jetstream

    async def connect(self) -> JetStreamContext:
        """Connect, however long the server takes to appear; raises what it answers to a user that it does not know."""
        client = await self._broker.connect()
        self._jetstream = client.jetstream(timeout=5)
        self._require_tls()
        return self._jetstream

    @property
    def server_id(self) -> str:
        """Id of the server process that the connection leads to: another one after each start of the server."""
        # nats-py has no public name for what the server's INFO holds beyond its version.
        return str(self.jetstream._nc._server_info.get("server_id", ""))

    async def listen(self, handlers: Handlers[Any], service: object, begin: Begin, pool: Pool) -> None:
        """Begin to take the messages of every handler's durable."""
        self._dispatcher = dispatcher = Dispatcher(
            service, begin, pool, self.jetstream, self._holder, timedelta(seconds=self._settings.lease_seconds)
        )
        bindings = handlers.bindings.values()
        ordered = [one.durable for one in bindings if one.lease is None and not one.consumer.shared]
        # A connection of its own: handlers and requests need those of the service's pool.
        turns = Turns(self._service, connect_pool(self._service, self._settings.database_address, 1), ordered)
        for binding in bindings:
            if binding.lease is None:
                turn = nullcontext if binding.consumer.shared else partial(turns.of, binding.durable)
                inbox = inbox_prefix(self._service)
                self._intakes.append(Intake(self.jetstream, dispatcher, binding, inbox=inbox, turn=turn))
                continue
            # Each worker takes for itself: together they would hold quick work back behind slow.
            for _ in range(binding.consumer.workers):
                self._subscribe(binding, dispatcher)
        await self._broker.start()
        for intake in self._intakes:
            await intake.start()
        if ordered:
            self._turns = asyncio.create_task(turns.run())
        self._dead_letters = OwnDeadLetters(
            self._service, self.jetstream, dispatcher, {one.durable: one for one in bindings}
        )

    @property
    def dead_letters(self) -> OwnDeadLetters:
        """What this service gave up; raises ConnectionError until it listens."""
        if self._dead_letters is None:
            raise ConnectionError(f"{self._service} is not listening yet")
        return self._dead_letters

    def _subscribe(self, binding: Binding, dispatcher: Dispatcher) -> None:
        subscriber = self._broker.subscriber(
            binding.row.subject,
            durable=binding.durable,
            stream=JStream(binding.row.stream.name, declare=False),
            pull_sub=PullSub(batch_size=1, timeout=5),
            ack_policy=AckPolicy.MANUAL,
            inbox_prefix=self._inbox,
            decoder=_whole,
            no_reply=True,
        )

        async def consume(message: NatsMessage) -> None:
            await dispatcher.deliver(message.raw_message, binding)

        subscriber(consume)

    async def publish(self, event: Event, entity: str) -> None:
        """Publish an event at once, for a service without a database; raises what `publishing.publish` raises."""
        outgoing = seal(event, service=self._service, entity=entity, trace=trace_headers())
        await publish(self.jetstream, outgoing)

    async def stop(self) -> None:
        """Give back what is unfinished, then close."""
        await asyncio.gather(*(intake.stop() for intake in self._intakes))
        if self._turns is not None:
            await tasks.end(self._turns)
        if self._dead_letters is not None:
            await self._dead_letters.stop()
        if self._dispatcher is not None:
            await self._dispatcher.give_up()
        try:
            await self._broker.stop()
        except (nats.errors.Error, OSError) as error:
            # There is nobody to drain to. What is unfinished comes again to others.
            log.warning("nats_not_drained", reason=describe(error))
            with suppress(nats.errors.Error, OSError):  # it sends what is pending, last of all
                await self.jetstream._nc.close()

    async def _reconnected(self) -> None:
        try:
            self._require_tls()
        except ConnectionError as error:
            log.critical("nats_without_tls", reason=str(error))
            os.kill(os.getpid(), signal.SIGTERM)

    def _require_tls(self) -> None:
        """Raise ConnectionError where the URL requires TLS and the server does not: nats-py then sends unencrypted."""
        wanted = self._settings.nats_url.startswith("tls://") and not self._settings.nats_tls_first
        if wanted and not self.jetstream._nc._server_info.get("tls_required"):
            raise ConnectionError("nats_url begins with tls://, but the server there does not require TLS")

    async def _report(self, error: Exception) -> None:
        # The client calls this for each failed reconnect; its own way is a page of traceback.
        log.warning("nats_client_error", reason=describe(error))
        self.rights.note(error)
        if self._jetstream is None and "authorization violation" in str(error).lower():
            raise error  # no further attempt ends otherwise: the process ends, and its log shows why


def _security(settings: BusSettings) -> NatsSecurity:
    context, first = settings.tls.client, settings.nats_tls_first
    if settings.nats_seed_file is None:
        return NatsSecurity(ssl_context=context, tls_handshake_first=first)
    return NatsNKey(settings.nats_seed_file, ssl_context=context, tls_handshake_first=first)


async def _whole(message: NatsMessage) -> NatsMessage:
    """Hand the whole message on undecoded, so that a broken body reaches settle and its dead letters."""
    return message
