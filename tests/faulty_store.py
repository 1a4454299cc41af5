"""An object store that is slow, fails or takes no writes: a proxy on loopback before the real one.

It forwards requests as they come, so that their signatures stay good, each on a connection of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum

LOOPBACK = "127.0.0.1"
SLOW_SECONDS = 1.0
"""Before each request of a slow store."""
READS = frozenset({"GET", "HEAD"})


class StoreFault(Enum):
    """What the store answers."""

    SLOW = "slow"
    """What it should, a second late."""
    UNAVAILABLE = "unavailable"
    """503 SlowDown."""
    BROKEN = "broken"
    """500 InternalError."""
    RESET = "reset"
    """Nothing: the connection is reset."""
    READ_ONLY = "read-only"
    """403 AccessDenied to whatever is no read."""


_REFUSALS = {
    StoreFault.UNAVAILABLE: (503, "Service Unavailable", "SlowDown", "Please reduce your request rate."),
    StoreFault.BROKEN: (500, "Internal Server Error", "InternalError", "We encountered an internal error."),
    StoreFault.READ_ONLY: (403, "Forbidden", "AccessDenied", "Access Denied."),
}


class FaultyStore:
    """Before the store at a port of this machine. `fault` may be changed at any time and counts from the next request."""

    def __init__(self, port: int) -> None:
        self._store = port
        self.fault: StoreFault | None = None
        self.refused = 0
        """Requests that met a fault."""
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; returns the address that stands for the store's."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        return "http://{}:{}".format(*self._server.sockets[0].getsockname())

    def stop(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method = head.split(b" ", 1)[0].decode()
            fault = self.fault
            if fault is StoreFault.READ_ONLY and method in READS:
                fault = None
            self.refused += fault is not None
            if fault is StoreFault.RESET:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif fault in _REFUSALS:
                await self._refuse(fault, method, _length(head), reader, writer)
            else:
                await asyncio.sleep(SLOW_SECONDS if fault is StoreFault.SLOW else 0)
                await self._forward(head, reader, writer)
        writer.close()

    @staticmethod
    async def _refuse(
        fault: StoreFault, method: str, length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(length)  # a client that still sends would find its connection reset
        status, phrase, code, message = _REFUSALS[fault]
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        body = "" if method == "HEAD" else text
        writer.write(
            f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, onward = await asyncio.open_connection(LOOPBACK, self._store)
        # The next request has a connection of its own, and with it the fault of its time.
        onward.write(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        sending = asyncio.create_task(_pump(reader, onward))
        try:
            await _pump(answers, writer)
        finally:
            sending.cancel()
            onward.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def _pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(64 * 1024):
        to.write(data)
        await to.drain()
