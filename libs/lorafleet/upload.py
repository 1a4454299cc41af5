"""A file as the body of a request, read as it is sent: for both the blocking client and that of asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx

_CHUNK = 1024 * 1024


class FileBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A file's bytes, a megabyte in memory at a time."""

    def __init__(self, path: Path) -> None:
        """Raises OSError for a file that cannot be read."""
        with path.open("rb"):
            self.bytes = path.stat().st_size
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk
