"""The network as an import may use it: named hosts alone, public addresses alone, no more bytes than were allowed.

What a caller names makes the registry send requests, and redirects make it send more. Every one of them passes here.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

import httpx2

from services.registry.imports.source import CannotFetch


@dataclass
class Allowance:
    """What one import may still take: bytes of answers, and until when (time.monotonic)."""

    bytes: int
    until: float


_allowed: ContextVar[Allowance] = ContextVar("allowance of an import")


@contextmanager
def allowance(most: int, seconds: float) -> Iterator[None]:
    """Requests of this thread (or task) may take this much together."""
    token = _allowed.set(Allowance(most, time.monotonic() + seconds))
    try:
        yield
    finally:
        _allowed.reset(token)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts that may be contacted. One that begins with a dot stands for all below it.

    private: hosts (`name` or `name:port`) that may also have addresses of private networks, and speak plain http.
    """

    public: Sequence[str]
    private: Sequence[str]

    def allows(self, host: str) -> bool:
        return any(host == one or (one.startswith(".") and host.endswith(one)) for one in self.public)

    def allows_privately(self, host: str, port: int | None) -> bool:
        return host in self.private or f"{host}:{port}" in self.private


class GuardedTransport(httpx2.BaseTransport):
    """httpx's transport behind the rules above. Raises CannotFetch, which no retry of a client catches."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        place = _allowed.get(None)
        if place is None:
            raise CannotFetch("a request outside an import", 502)
        url = request.url
        address = self._address(url)
        # Connected is to the very address that was looked at: a second look-up could give another one.
        request = httpx2.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": url.host, "timeout": _timeouts(place)},
        )
        answer = self._inner.handle_request(request)
        return httpx2.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_Counted(cast("httpx2.SyncByteStream", answer.stream), place),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._inner.close()

    def _address(self, url: httpx2.URL) -> str:
        """The address to connect to; raises CannotFetch for a host that must not be contacted."""
        host, port = url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
        private = self._hosts.allows_privately(host, port)
        if not private and not self._hosts.allows(host):
            raise CannotFetch(
                f"host {host!r} is not allowed; an operator lists allowed hosts in LORAFLEET_IMPORT_HOSTS"
            )
        if url.scheme != "https" and not private:
            raise CannotFetch(f"host {host!r} is allowed over https only, not {url.scheme}")
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise CannotFetch(f"host {host!r} cannot be resolved: {error}", 502) from error
        for address in found:
            if not private and not ipaddress.ip_address(address).is_global:
                raise CannotFetch(
                    f"host {host!r} has the private address {address}; an operator allows it in "
                    "LORAFLEET_IMPORT_PRIVATE_HOSTS"
                )
        return found[0]


class _Counted(httpx2.SyncByteStream):
    """An answer's bytes, counted against the allowance as they come."""

    def __init__(self, inner: httpx2.SyncByteStream, place: Allowance) -> None:
        self._inner = inner
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            self._place.bytes -= len(chunk)
            if self._place.bytes < 0:
                raise CannotFetch("the download exceeds the size limit of an import", 413)
            if time.monotonic() > self._place.until:
                raise CannotFetch("the download exceeds the time limit of an import", 504)
            yield chunk

    def close(self) -> None:
        self._inner.close()


def _timeouts(place: Allowance) -> dict[str, float]:
    left = place.until - time.monotonic()
    if left <= 0:
        raise CannotFetch("the download exceeds the time limit of an import", 504)
    return {"connect": min(10.0, left), "read": min(30.0, left), "write": min(30.0, left), "pool": min(10.0, left)}
