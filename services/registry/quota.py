"""What one domain may upload: so much at once, so much in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.registry.store import listing


class UploadsInFlight:
    """Counts uploads of this process by whoever they are for. Each replica counts its own."""

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
                f"{self._most} uploads are running here already; send this one when another has ended",
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
            "Quota of the domain",
            f"{domain} has uploaded {stored} bytes of {limit}; {further} more do not fit. Ask an operator for more",
            field="domain",
            stored=stored,
            limit=limit,
        )
