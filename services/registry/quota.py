"""Limits on the uploads of a domain: how many at once, how many bytes in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.registry.store import listing


class UploadsInFlight:
    """Counts the uploads of this process by caller or domain. Each replica counts its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: Counter[str] = Counter()

    @contextmanager
    def one_of(self, key: str, field: str) -> Iterator[None]:
        """One more upload of `key` for as long as the block runs. Raises Problem 429 when there are enough."""
        if self._running[key] >= self._most:
            raise Problem(
                429,
                "Too many uploads",
                f"{self._most} uploads are in progress already; retry when one of them has ended",
                field=field,
                limit=self._most,
            )
        self._running[key] += 1
        try:
            yield
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]


async def check_stored(connection: Connection, domain: str, further: int, limit: int) -> None:
    """Raises Problem 413 where `further` bytes would take what the domain has uploaded beyond the limit."""
    stored = await listing.uploaded_bytes(connection, domain)
    if stored + further > limit:
        raise Problem(
            413,
            "Domain quota exceeded",
            f"{domain} has stored {stored} bytes of {limit}; {further} more do not fit; an operator can raise it",
            field="domain",
            stored=stored,
            limit=limit,
        )
