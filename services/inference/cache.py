"""Disk cache of adapter artifacts, named by the digest of their bytes.

Files appear whole or not at all, so that processes on one machine may share the folder and map the same pages.
"""

import asyncio
import hashlib
import os
from pathlib import Path

from fleet_events.v1 import Blob
from fleet_kit.blobs import Blobs


class DiskCache:
    """At most ``limit`` bytes of artifacts in ``folder``; the least recently used go first."""

    def __init__(self, folder: Path, limit: int, blobs: Blobs) -> None:
        self._folder = folder
        self._limit = limit
        self._blobs = blobs

    def path(self, sha256: str) -> Path:
        """Where the artifact lies or would lie."""
        return self._folder / sha256[:2] / f"{sha256}.arrow"

    async def get(self, blob: Blob) -> Path:
        """The artifact's file, its digest checked now. A damaged copy is fetched again.

        Raises what `Blobs.fetch` raises: BlobMissing, BlobCorrupt, or the client's transport errors.
        """
        path = self.path(blob.sha256)
        if await asyncio.to_thread(_intact, path, blob.sha256):
            os.utime(path)
            return path
        await self._blobs.fetch(blob, path)
        await asyncio.to_thread(self._trim, path)
        return path

    def _trim(self, newest: Path) -> None:
        files = []
        for file in self._folder.glob("*/*.arrow"):
            try:
                files.append((file.stat().st_mtime, file.stat().st_size, file))
            except FileNotFoundError:  # another replica was faster
                continue
        size = sum(one[1] for one in files)
        for _, length, file in sorted(files):
            if size <= self._limit:
                return
            if file != newest:
                # A process that still maps it keeps its pages until it lets go.
                file.unlink(missing_ok=True)
                size -= length


def _intact(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return True
    except FileNotFoundError:
        return False
    path.unlink(missing_ok=True)
    return False
