"""Disk cache of adapter artifacts, named by the digest of their bytes.

Files appear whole or not at all, so that processes on one machine may share the folder and map the same pages.
"""

import asyncio
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fleet_events.v1 import Blob
from fleet_kit.blobs import Blobs
from services.inference.metrics import CACHE


@dataclass(frozen=True, slots=True)
class CachedFile:
    """An artifact on disk. `last_used`: Unix time in seconds."""

    name: str
    bytes: int
    last_used: float
    path: Path


class DiskCache:
    """At most `limit` bytes of artifacts in `folder`; the least recently used go first."""

    def __init__(self, folder: Path, limit: int, blobs: Blobs) -> None:
        self.folder = folder
        self.limit = limit
        self._blobs = blobs

    def path(self, sha256: str) -> Path:
        """Where the artifact lies or would lie."""
        return self.folder / sha256[:2] / f"{sha256}.arrow"

    async def get(self, blob: Blob) -> Path:
        """The artifact's file, its digest checked now. A damaged copy is fetched again.

        Raises what `Blobs.fetch` raises: BlobMissing, BlobCorrupt, or the client's transport errors.
        """
        path = self.path(blob.sha256)
        if await asyncio.to_thread(_intact, path, blob.sha256):
            os.utime(path)
            CACHE.labels("hit").inc()
            return path
        CACHE.labels("miss").inc()
        await self._blobs.fetch(blob, path)
        await asyncio.to_thread(self._trim, path)
        return path

    async def contents(self) -> list[CachedFile]:
        """What lies there, most recently used first."""
        return await asyncio.to_thread(self._files)

    def _files(self) -> list[CachedFile]:
        found = []
        for file in self.folder.glob("*/*.arrow"):
            with suppress(FileNotFoundError):  # another replica was faster
                status = file.stat()
                found.append(CachedFile(file.name, status.st_size, status.st_mtime, file))
        return sorted(found, key=lambda one: one.last_used, reverse=True)

    def _trim(self, newest: Path) -> None:
        size = 0
        for file in self._files():
            size += file.bytes
            if size > self.limit and file.path != newest:
                # A process that still maps it keeps its pages until it lets go.
                file.path.unlink(missing_ok=True)


def _intact(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return True
    except FileNotFoundError:
        return False
    path.unlink(missing_ok=True)
    return False
