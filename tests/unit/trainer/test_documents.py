"""The stream of a document store: as slow as its reader, whole or refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import HttpUrl, SecretStr

from services.trainer.datasets.settings import DocumentStore
from services.trainer.datasets.sources.documents import Documents, StreamCut, stream_documents
from services.trainer.datasets.sources.ndjson import MAX_LINE_BYTES, LineTooLong
from tests.integration.trainer.document_store import Document, DocumentStoreServer, running

pytestmark = pytest.mark.unit

TEXT = "Photovoltaik im Baurecht. " * 40


def endless() -> Iterator[Document]:
    number = 0
    while True:
        number += 1
        yield {"id": number, "title": f"Paragraph {number}", "text": TEXT}


def some(count: int) -> list[Document]:
    return [{"id": f"d{number}", "title": f"Paragraph {number}", "text": TEXT} for number in range(count)]


def settings(server: DocumentStoreServer, **changes: object) -> DocumentStore:
    return DocumentStore.model_validate({"url": HttpUrl(server.url), **changes})


async def ids(store: DocumentStore, query: str = "Photovoltaik", limit: int | None = None) -> list[str]:
    return [json.loads(line)["id"] async for line in stream_documents(store, query, limit)]


@pytest.mark.requirement("LA-6.1")
async def test_a_reader_that_stops_makes_the_store_stop() -> None:
    async with running(DocumentStoreServer(endless())) as server:
        lines = stream_documents(settings(server), "Photovoltaik Baurecht")
        for _ in range(10):
            await anext(lines)

        async def still() -> int:
            """What the store could send until it could send no more."""
            sent = -1
            while server.sent != sent:
                sent = server.sent
                await asyncio.sleep(0.3)
            return sent

        stopped_at = await still()
        assert stopped_at < 8 * 1024 * 1024  # buffers of the sockets, of an endless answer
        for _ in range(20_000):
            await anext(lines)
        assert await still() > stopped_at + 10_000 * len(TEXT)
        await lines.aclose()


async def test_a_cut_answer_is_told_from_a_whole_one() -> None:
    async with running(DocumentStoreServer(some(50), cuts=[20])) as server:
        with pytest.raises(StreamCut, match="cut after 20 documents"):
            await ids(settings(server))
        assert len(await ids(settings(server))) == 50


async def test_a_store_that_can_resume_is_asked_again_from_the_last_document_on() -> None:
    async with running(DocumentStoreServer(some(50), cuts=[20, 7])) as server:
        found = await ids(settings(server, resume=True), limit=40)
        assert found == [f"d{number}" for number in range(40)]
        assert [one.get("after") for one in server.requests] == [None, "d19", "d26"]
        assert [one["limit"] for one in server.requests] == ["40", "20", "13"]


async def test_an_answer_whose_end_cannot_be_told_is_refused() -> None:
    async with running(DocumentStoreServer(some(3), framed=False)) as server:
        with pytest.raises(StreamCut, match="neither a length nor chunks"):
            await ids(settings(server))


async def test_a_document_without_end_is_refused() -> None:
    async with running(DocumentStoreServer([{"id": 1, "title": "x", "text": "x" * (MAX_LINE_BYTES + 1)}])) as server:
        with pytest.raises(LineTooLong):
            await ids(settings(server), query="x")


async def test_the_store_gets_its_own_token_and_no_other() -> None:
    async with running(DocumentStoreServer(some(1))) as server:
        assert await ids(settings(server, token=SecretStr("of-the-store"))) == ["d0"]
        assert await ids(settings(server)) == ["d0"]
        assert server.tokens == ["Bearer of-the-store"]


@asynccontextmanager
async def answering(head: str, body: bytes = b"") -> AsyncIterator[tuple[DocumentStore, list[str]]]:
    """A store that answers these bytes and then sends nothing more; with the request heads it was sent."""
    heads: list[str] = []
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()
        await done.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield DocumentStore.model_validate({"url": f"http://127.0.0.1:{port}/documents", "token": "of-the-store"}), heads
    done.set()
    server.close()


async def test_a_redirect_is_refused_and_the_token_goes_nowhere_else() -> None:
    async with running(DocumentStoreServer(some(1))) as other:
        for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect"):
            head = f"HTTP/1.1 {status}\r\nLocation: {other.url}\r\nContent-Length: 0"
            async with answering(head) as (store, heads):
                with pytest.raises(httpx.HTTPStatusError, match=status[:3]):
                    await ids(store)
                assert len(heads) == 1
        assert (other.requests, other.tokens) == ([], [])


async def test_a_compressed_answer_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b'{"id": 1, "text": "' + b" " * 50_000_000 + b'"}\n')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    async with answering(head, bomb) as (store, heads):
        with pytest.raises(httpx.DecodingError, match=r"compressed \(gzip\)"):
            await ids(store)
        assert "accept-encoding: identity" in heads[0].lower()


async def test_a_store_that_falls_silent_is_given_up_after_the_idle_time() -> None:
    first = b'{"id": 1, "title": "a", "text": "b"}\n'
    head = "HTTP/1.1 200 OK\r\nContent-Length: 1000"
    async with answering(head, first) as (store, _):
        begun = time.monotonic()
        with pytest.raises(StreamCut, match="cut after 1 documents: ReadTimeout"):
            _ = [line async for line in stream_documents(store, "x", idle_seconds=0.5)]
        assert time.monotonic() - begun < 5


def test_a_column_that_is_named_leaves_the_other_s_default() -> None:
    source = Documents.model_validate(
        {"kind": "documents", "store": "law", "query": "x", "columns": {"prompt": "What says {title}?"}}
    )
    assert (source.columns.prompt, source.columns.completion) == ("What says {title}?", "text")
