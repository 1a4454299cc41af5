"""The HTTP server of a service: how long and how many connections may cost it without a request."""

import asyncio
import contextlib
import json
import resource
import signal
import sys
import time
from types import FrameType
from typing import Any, Final, cast

import h11
import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fleet_kit import telemetry
from fleet_kit.errors import Problem
from fleet_kit.http import problem_response
from fleet_kit.settings import BusSettings, HttpSettings

__all__ = ["serve"]

log = structlog.get_logger()

_HEAD_BYTES: Final = 16 * 1024
_BACKLOG: Final = 2048
_START_FAILED: Final = 3
"""Exit code where the application could not start, as uvicorn's own."""
_KEEP_ALIVE: Final = 5
"""Seconds between two requests of a connection."""
_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 32 << 20
"""How long, and for how many bytes, a client that is still sending its body is listened to after its answer."""
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_OWN_FILES: Final = 256
"""File descriptors beside those of clients: databases, the bus, models."""


def serve(app: FastAPI, settings: BusSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    telemetry.configure(app.state.name, settings.log_level)
    server = settings.tls.server
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_protocol(settings, requires_client_certificate=settings.tls.requires_client_certificate),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_graceful_shutdown=settings.http_finish_seconds,
        lifespan="on",
        ssl_context_factory=None if server is None else lambda *_: server,
    )
    serving = _Leaving(config, app, settings.http_leave_seconds)
    with contextlib.suppress(KeyboardInterrupt):
        serving.run()
    if not serving.started:
        sys.exit(_START_FAILED)


class _Leaving(uvicorn.Server):
    """A server that, told to stop, answers for some seconds more before it closes its port.

    Whatever balances load learns of the stop no earlier than this process does: until it has, requests still come. So
    readiness ends at once, and every answer ends its connection, so that no client sends its next one into the close.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, seconds: float) -> None:
        super().__init__(config)
        self._app, self._seconds = app, seconds
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM begins the leave; a second one, or SIGINT, ends it."""
        if sig != signal.SIGTERM or self._until is not None or not self._seconds:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._until = time.monotonic() + self._seconds
        self._app.state.leaving = True
        ends_connection = (b"connection", b"close")
        self.config.encoded_headers.append(ends_connection)
        # uvicorn takes the former over once a second.
        self.server_state.default_headers = [*self.server_state.default_headers, ends_connection]

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; called ten times a second."""
        if self._until is not None and time.monotonic() >= self._until:
            self.should_exit = True
        return await super().on_tick(counter)


class _Lingering:
    """A transport that stays open for reading where it would be closed before the client has sent its body.

    Unread bytes make the kernel answer a close with a reset, which can reach the client before the answer
    that explains it (RFC 9112, section 9.6). So the answer is ended first, and what still comes is thrown away.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "H11Protocol", loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._protocol, self._loop = transport, protocol, loop
        self._room = _LINGER_BYTES
        self._ends: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    @property
    def lingers(self) -> bool:
        """Is it open for nothing but what the client still sends?"""
        return self._ends is not None

    def is_closing(self) -> bool:
        """Whether nothing more is to be sent."""
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close it, at once or when the client has sent its body."""
        if self.lingers or self._transport.is_closing() or self._protocol.conn.their_state is not h11.SEND_BODY:
            self._transport.close()
            return
        self._ends = self._loop.call_later(_LINGER_SECONDS, self._transport.close)
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client has gone already
                self._transport.write_eof()
        self._transport.resume_reading()

    def discard(self, data: bytes) -> None:
        """What the client still sent."""
        self._room -= len(data)
        if self._room < 0:
            self._transport.close()

    def gone(self) -> None:
        """The connection is lost."""
        if self._ends is not None:
            self._ends.cancel()


class _ProbesAlone:
    """What a client without a certificate reaches where certificates are required."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        refusal = Problem(403, "Certificate required", "show a client certificate that this service's operator signed")
        await problem_response(refusal)(scope, receive, send)


def _protocol(settings: HttpSettings, *, requires_client_certificate: bool = False) -> type[H11Protocol]:
    limit = _connections(settings.http_connections)
    waiting: dict[H11Protocol, None] = {}  # in the order in which they began to wait

    class Guarded(H11Protocol):
        """HTTP/1.1 that waits for a request's head, and for a client that takes no bytes, no longer than allowed.

        uvicorn's own limit of connections answers 503 to everybody when it is reached, health checks included. Here the
        connection goes that has waited longest without a request.
        """

        _lingering: _Lingering
        _timer: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._lingering = _Lingering(transport, self, self.loop)
            super().connection_made(cast("asyncio.Transport", self._lingering))
            if requires_client_certificate and not transport.get_extra_info("peercert"):
                self.app = cast("Any", _ProbesAlone(cast("ASGIApp", self.app)))
            if len(self.connections) > limit:
                next(iter(waiting), self).transport.abort()
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self._lingering.lingers:
                self._lingering.discard(data)
            else:
                super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self._waited()
            self._lingering.gone()
            if self._stuck is not None:
                self._stuck.cancel()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._waited()
            elif not self.transport.is_closing():
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._lingering.lingers:
                waiting.setdefault(self)
            elif self.cycle.response_complete and not self.transport.is_closing():
                # Idle until the next request; uvicorn's keep-alive timer runs, and it is the first to go.
                waiting[self] = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(settings.http_write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "Bad request", msg)

        def _wait(self) -> None:
            waiting.setdefault(self)
            if self._timer is None:
                self._timer = self.loop.call_later(settings.http_head_seconds, self._late)

        def _waited(self) -> None:
            waiting.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self.conn.trailing_data[0]:
                self._refuse(408, "Request timeout", "the request's head did not come in time")
            else:
                self.transport.close()

        def _refuse(self, status: int, title: str, detail: str) -> None:
            body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
            headers = [
                ("content-type", "application/problem+json"),
                ("content-length", str(len(body))),
                ("x-content-type-options", "nosniff"),
                ("connection", "close"),
            ]
            events = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
            if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
            self.transport.close()

    return Guarded


def _connections(wanted: int) -> int:
    """As many as are wanted, or as this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OWN_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = max(16, soft - _OWN_FILES)
    if allowed < wanted:
        log.warning("http_connections_limited", limit=allowed, open_files=soft)
    return min(wanted, allowed)
