"""Requests that another replica answers better: passed on to it as they came, its answer passed back as it comes.

A forwarded request goes one hop: it carries `HOP` and is answered where it arrives. It carries its caller's own token
and the domains that this acts for, so the other replica decides for itself what the caller may do. It is sent only to
addresses that were announced by holders of inference's bus credential (see `announcements`), never to one that a
request names.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

import httpx
import structlog
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import Counter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_kit import tasks
from fleet_kit.acting_for import ACT_FOR
from fleet_kit.tracing import trace_headers
from services.inference.chosen import Chosen
from services.inference.errors import ServerFault
from services.inference.generation_ids import author_tag
from services.inference.http import quota_headers
from services.inference.http.disconnect import unless_gone
from services.inference.replicas.announcements import Announcements
from services.inference.replicas.selection import Reason, Replica, decide

log = structlog.get_logger()
T = TypeVar("T")

FORWARDED = Counter(
    "lorafleet_inference_forwarded_total",
    "Requests sent to another replica, by why (holder, placed, overloaded, draining) and what came of it "
    "(answered, unreachable, refused, disconnected)",
    ["reason", "outcome"],
)
AFFINITY = Counter(
    "lorafleet_inference_affinity_total",
    "Adapter requests at one of several replicas, by whether the one chosen for them held the adapter (hit, miss)",
    ["outcome"],
)

HOP = "X-Lorafleet-Forwarded"
ANSWERED_BY = "X-Lorafleet-Replica"
PASSED_BACK = (
    "content-type",
    "cache-control",
    "x-accel-buffering",
    "retry-after",
    "www-authenticate",
    ANSWERED_BY,
    *quota_headers.NAMES,
)
TIMEOUT = httpx.Timeout(None, connect=1.0, write=10.0)
"""Reading has no limit here: an answer may be long in coming, and a replica that dies is noticed by its silence."""
LIMITS = httpx.Limits(keepalive_expiry=3.0)
"""The other side closes idle connections after 5 s: none is used just then."""
LOOK_EVERY = 0.5
"""Seconds between looks at whether the other replica is still there."""
SILENCE = 30.0
"""Seconds between two chunks after which a streamed answer counts as broken off."""
PATIENCE = 2.0
"""A refusal that comes later than this (s) has used up the time in which the request could have waited here."""
KNOWN_BETTER_HERE = frozenset({404, 409, 422})
"""This replica could resolve the request; the other one lacks its event yet, or cannot load what is requested."""


class _Elsewhere(Exception):
    """The other replica does not answer; this one does."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Passes requests on. `announcements` None: this replica stands alone. `factor`: see `replicas.with_room`."""

    announcements: Announcements | None
    http: httpx.AsyncClient
    factor: float

    async def answer(self, request: Request, chosen: Chosen) -> Response | None:
        """The answer of the replica that should give it; None if that is this one, or the other one cannot."""
        if self.announcements is None or HOP in request.headers:
            return None
        others = self.announcements.others
        if not others:
            return None
        own, adapters = self.announcements.own, {one.adapter_id for one in chosen.adapters}
        decision = decide(adapters, chosen.base.revision, own, others, self.factor)
        if adapters:
            AFFINITY.labels("hit" if decision.held else "miss").inc()
        if decision.reason is Reason.HERE:
            return None
        target = decision.replica
        try:
            response = await self._forward(request, target, own.name, chosen.base.revision, self.announcements)
        except _Elsewhere as error:
            FORWARDED.labels(decision.reason, error.outcome).inc()
            log.warning("forwarded_in_vain", to=target.name, outcome=error.outcome, reason=str(error))
            return None
        FORWARDED.labels(decision.reason, "disconnected" if response.status_code == 499 else "answered").inc()
        return response

    async def to_author(self, request: Request, tag: bytes) -> Response | None:
        """The response of the replica that gave an answer, by its `author_tag`; None where no other one answers."""
        if self.announcements is None or HOP in request.headers:
            return None
        target = next((one for one in self.announcements.others if author_tag(one.name) == tag), None)
        if target is None:
            return None
        try:
            return await self._forward(request, target, self.announcements.own.name, "", self.announcements)
        except _Elsewhere as error:
            log.warning("forwarded_in_vain", to=target.name, outcome=error.outcome, reason=str(error))
            return None

    async def _forward(
        self, request: Request, target: Replica, own: str, revision: str, announcements: Announcements
    ) -> Response:
        await request.body()  # kept by the request; a disconnect must not be watched for before it is read
        async with AsyncExitStack() as underway:
            underway.enter_context(announcements.sending(target.name, revision))
            sent = self._send(request, target, own, underway)
            try:
                answer = await unless_gone(request, _while_alive(announcements, target.name, sent))
            except httpx.TransportError as error:
                announcements.unreachable(target.name)
                raise _Elsewhere("unreachable", repr(error)) from error
            if answer is None:
                return Response(status_code=499)
            headers = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
            if answer.is_stream_consumed:
                return Response(answer.content, answer.status_code, headers)
            return _Passed(_chunks(answer, target.name), answer.status_code, headers, underway.pop_all())

    async def _send(self, request: Request, target: Replica, own: str, underway: AsyncExitStack) -> httpx.Response:
        """The other replica's answer, read unless it is streamed. Raises `_Elsewhere` and httpx.TransportError."""
        begun = time.monotonic()
        headers = {
            "Authorization": request.headers["Authorization"],
            "Content-Type": request.headers.get("Content-Type", "application/json"),
            "Accept-Encoding": "identity",
            HOP: own,
            **_narrowing(request),
            **trace_headers(),
        }
        url = f"{target.url}{request.url.path}"
        sent = self.http.stream(request.method, url, content=await request.body(), headers=headers)
        answer = await underway.enter_async_context(sent)
        refused = answer.status_code == 503 and time.monotonic() - begun < PATIENCE
        if refused or answer.status_code in KNOWN_BETTER_HERE:
            raise _Elsewhere("refused", f"status {answer.status_code}")
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
        return answer


def _narrowing(request: Request) -> dict[str, str]:
    """What narrows the caller's token here narrows it there: without it the forwarded request would reach more."""
    return {ACT_FOR: ",".join(request.headers.getlist(ACT_FOR))} if ACT_FOR in request.headers else {}


class _Passed(StreamingResponse):
    """A streamed answer of another replica; ends the request there when it ends here, however that comes."""

    def __init__(
        self, chunks: AsyncIterator[bytes], status: int, headers: Mapping[str, str], underway: AsyncExitStack
    ) -> None:
        super().__init__(chunks, status, headers)
        self._underway = underway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._underway:
            await super().__call__(scope, receive, send)


async def _chunks(answer: httpx.Response, replica: str) -> AsyncIterator[bytes]:
    chunks = answer.aiter_raw()
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except (httpx.TransportError, TimeoutError) as error:
            log.warning("forwarded_stream_broke", replica=replica, reason=repr(error))
            fault = ServerFault(f"replica {replica!r} broke off its answer; ask again.", code="replica_lost")
            # An empty line first: the last event may have come in part.
            yield f"\n\ndata: {json.dumps(fault.body())}\n\n".encode()
            return
        yield chunk


async def _while_alive(announcements: Announcements, name: str, work: Coroutine[None, None, T]) -> T:
    """The work's result, unless the replica that it waits for is gone: then `_Elsewhere`."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_EVERY)
            if not task.done() and announcements.gone(name):
                raise _Elsewhere("unreachable", "it has not announced itself any more")
        return task.result()
    finally:
        await tasks.end(task)


class AnsweredBy:
    """ASGI middleware: every response names the replica that gave it; a forwarded one names it already."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(ANSWERED_BY, self._replica)
            await send(message)

        await self._app(scope, receive, named if scope["type"] == "http" else send)
