"""TCP connections that a test can break: a proxy on loopback between a client and its server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

LOOPBACK = "127.0.0.1"
CHUNK = 64 * 1024


class Fault(Enum):
    """What happens to a link's connections."""

    CUT = "cut"
    """They are reset (RST), and so is every new one."""
    BLACK_HOLE = "black hole"
    """They stay open, new ones are accepted, and no byte passes. What was sent arrives once the link heals."""
    SLOW = "slow"
    """Bytes pass at `SLOW_BYTES` a second and connection."""


SLOW_BYTES = 64 * 1024


class Link:
    """A port of its own that leads to a server. Its methods may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, server: asyncio.Server, target: int) -> None:
        self.port = port
        self._loop = loop
        self._server = server
        self._target = target
        self._fault: Fault | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def address(self, url: str) -> str:
        """An address or URL with this link in place of its server."""
        return url.replace(f"{LOOPBACK}:{self._target}", f"{LOOPBACK}:{self.port}")

    def breaks(self, fault: Fault) -> None:
        """Have a fault from now on."""
        self._call(self._break, fault)

    def heals(self) -> None:
        """Have none any more."""
        self._call(self._break, None)

    def _call(self, change: Callable[[Fault | None], None], fault: Fault | None) -> None:
        done = threading.Event()

        def changed() -> None:
            change(fault)
            done.set()

        self._loop.call_soon_threadsafe(changed)
        done.wait(5)

    def _break(self, fault: Fault | None) -> None:
        self._fault = fault
        if fault is Fault.BLACK_HOLE:
            self._passing.clear()
        else:
            self._passing.set()
        if fault is Fault.CUT:
            for writer in list(self._writers):
                _reset(writer)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client's connection, from its beginning to its end."""
        with self._kept(writer):
            if self._fault is Fault.CUT:
                _reset(writer)
                return
            await self._passing.wait()
            try:
                onward, back = await asyncio.open_connection(LOOPBACK, self._target)
            except OSError:  # the server is down, and so is the link
                _reset(writer)
                return
            with self._kept(back):
                await asyncio.gather(self._pump(reader, back, writer), self._pump(onward, writer, back))

    @contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, origin: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK):
                if self._fault is Fault.SLOW:
                    await asyncio.sleep(len(data) / SLOW_BYTES)
                await self._passing.wait()
                to.write(data)
                await to.drain()
            await self._passing.wait()
            to.write_eof()
        except (OSError, RuntimeError):  # one side is gone: the other learns it once the link lets it
            await self._passing.wait()
            _reset(to)
            _reset(origin)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        endpoint = writer.get_extra_info("socket")
        if endpoint is not None:
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Links:
    """Makes links, which live in a thread of their own: `with Links() as links:`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def to(self, port: int) -> Link:
        """A link to a port of this machine."""
        return self._run(self._open(port))

    def __enter__(self) -> Links:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self, target: int) -> Link:
        made: list[Link] = []

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await made[0].take(reader, writer)

        server = await asyncio.start_server(take, LOOPBACK, 0)
        port = int(server.sockets[0].getsockname()[1])
        made.append(Link(self._loop, port, server, target))
        return made[0]

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
