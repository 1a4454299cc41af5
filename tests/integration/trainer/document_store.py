"""A document store on loopback: full text over a corpus in memory, answered as chunked NDJSON."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

Document = dict[str, Any]


@dataclass
class DocumentStoreServer:
    """Gives the documents whose title and text hold every word of the query, in their order, from `after` on.

    `cuts` are numbers of documents after which the next answers break off; `framed` says whether an answer's end
    can be told. `sent` counts bytes that the other side's buffers have taken.
    """

    documents: Iterable[Document]
    cuts: list[int] = field(default_factory=list)
    framed: bool = True
    sent: int = 0
    requests: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/documents"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A small buffer, so that a reader who stops is noticed at once.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        writer.transport.set_write_buffer_limits(0)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request = {name: values[0] for name, values in parse_qs(urlsplit(head.split()[1]).query).items()}
            self.requests.append(request)
            self.tokens += [
                line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("authorization")
            ]
            framing = "Transfer-Encoding: chunked\r\n" if self.framed else ""
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n{framing}Connection: close\r\n\r\n".encode()
            )
            cut = self.cuts.pop(0) if self.cuts else None
            for given, document in enumerate(self._found(request)):
                if given == cut:
                    return
                await self._send(writer, json.dumps(document).encode() + b"\n")
            if self.framed:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the reader has gone
        finally:
            writer.close()

    def _found(self, request: dict[str, str]) -> Iterable[Document]:
        words, begun = request["query"].lower().split(), "after" not in request
        for document in self.documents:
            if not begun:
                begun = str(document["id"]) == request["after"]
                continue
            text = f"{document.get('title', '')} {document.get('text', '')}".lower()
            if all(word in text for word in words):
                yield document

    async def _send(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        writer.write(b"%x\r\n%s\r\n" % (len(line), line) if self.framed else line)
        await writer.drain()
        self.sent += len(line)


@asynccontextmanager
async def running(store: DocumentStoreServer) -> AsyncIterator[DocumentStoreServer]:
    """The store, answering on a free port of loopback."""
    server = await asyncio.start_server(store.answer, "127.0.0.1", 0)
    store.port = server.sockets[0].getsockname()[1]
    async with server:
        yield store
