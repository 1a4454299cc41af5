"""Documents of a store that answers a full-text query with a stream of NDJSON.

The store is called with `GET <url>?query=…` (and `limit=…` where one is given) with `Accept: application/x-ndjson`. It
answers 200 and one JSON object a line. A store whose settings have `resume` also takes `after=<id>`: the documents
behind the one of that id, in the same order.
"""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import httpx
from pydantic import Field, model_validator

from services.trainer.datasets.columns import Columns
from services.trainer.datasets.settings import DocumentStore
from services.trainer.datasets.sources.ndjson import LineTooLong, last_id, whole_lines
from services.trainer.datasets.sources.source import Access, BoundedFile, Gathered, Source
from services.trainer.datasets.worker.spec import InputFile

_TRIES = 5


class StreamCut(Exception):
    """The answer ended before its end."""


class Documents(Source):
    """Documents that match a query in a store by its name in `LORAFLEET_DOCUMENT_STORES`.

    Unless `columns` names others a document's `title` is the prompt and its `text` the completion. A document
    that makes no record (no title, a blank text) is left out and counted.
    """

    kind: Literal["documents"] = "documents"
    store: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    query: Annotated[str, Field(min_length=1, max_length=2000)]
    limit: Annotated[int | None, Field(ge=1, le=1_000_000_000)] = None
    columns: Columns = Columns(prompt="title", completion="text")
    unusable: Literal["refuse", "drop"] = "drop"

    origin: ClassVar[str] = "documents"

    @model_validator(mode="before")
    @classmethod
    def _title_and_text(cls, values: object) -> object:
        """`columns` that names only one of the two keeps the other's default."""
        if isinstance(values, dict) and isinstance(columns := values.get("columns"), dict):
            return {**values, "columns": {"prompt": "title", "completion": "text", **columns}}
        return values

    def originates(self) -> str:
        return f"documents:{self.store}"

    def check(self, access: Access) -> None:
        stores = access.service.settings.document_stores
        named = {name: one for name, one in stores.items() if one.reaches(access.domain)}
        if self.store not in named:
            known = ", ".join(sorted(named)) or "none is configured"
            raise access.fault("store", self.store, f"a name of LORAFLEET_DOCUMENT_STORES: {known}")

    async def gather(self, to: Path, access: Access) -> Gathered:
        path = to / "documents.jsonl"
        store = access.service.settings.document_stores[self.store]
        idle, tls = access.service.settings.source_idle_seconds, access.service.settings.tls.client
        with path.open("wb") as file:
            spool = BoundedFile(file, access, "query")
            try:
                async for line in stream_documents(store, self.query, self.limit, idle_seconds=idle, tls=tls):
                    spool.write(line)
            except (StreamCut, LineTooLong, httpx.HTTPError) as error:
                found = f"{self.store} ({error or type(error).__name__})"
                raise access.fault("store", found, "a store that answers to the end; nothing was kept") from error
        return Gathered((InputFile(path=path, format="jsonl", name=self.store),), {"documents": spool.lines})


async def stream_documents(
    store: DocumentStore,
    query: str,
    limit: int | None = None,
    *,
    idle_seconds: float = 60,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[bytes]:
    """The lines of a store's answer, one at a time.

    Nothing is read ahead of the reader but a socket's buffer: a reader that stops makes the store stop. A cut
    answer is requested again from the last whole document on, where the store can do that.

    Raises:
        StreamCut: it ended too early, or it is unknown whether it did.
        LineTooLong: a document is larger than a line may be.
        httpx.HTTPError: the store cannot be reached, or refuses.
    """
    # No client of the service: that one carries the service's own token, which the store must not see.
    # Nothing compressed: what a chunk of it would become is known when it has taken the memory.
    headers = {"Accept": "application/x-ndjson", "Accept-Encoding": "identity"}
    if store.token is not None:
        headers["Authorization"] = f"Bearer {store.token.get_secret_value()}"
    given, last = 0, ""
    async with httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(idle_seconds, connect=5),
        follow_redirects=False,
        verify=tls or True,
    ) as client:
        for left in range(_TRIES, 0, -1):
            bounds = {"limit": str(limit - given) if limit else "", "after": last}
            parameters = {"query": query} | {name: value for name, value in bounds.items() if value}
            try:
                async for line in _answer(client, store, parameters):
                    yield line
                    given += 1
                    last = last_id(line) if store.resume else ""
                    if given == limit:
                        return
            except (httpx.TransportError, StreamCut) as error:
                if not store.resume or left == 1 or (given and not last):
                    how = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                    raise StreamCut(f"cut after {given} documents: {how}") from error
                continue
            return


async def _answer(client: httpx.AsyncClient, store: DocumentStore, parameters: dict[str, str]) -> AsyncIterator[bytes]:
    async with client.stream("GET", str(store.url), params=parameters) as response:
        if response.status_code != 200:
            start = (await anext(response.aiter_bytes(1024), b""))[:200].decode(errors="replace")
            raise httpx.HTTPStatusError(
                f"status {response.status_code}: {start}", request=response.request, response=response
            )
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise httpx.DecodingError(f"the answer is compressed ({encoding[:50]}), expected it as it is")
        if "transfer-encoding" not in response.headers and "content-length" not in response.headers:
            raise StreamCut("the answer has neither a length nor chunks, so its end cannot be distinguished from a cut")
        async for line in whole_lines(response.aiter_bytes()):
            yield line
