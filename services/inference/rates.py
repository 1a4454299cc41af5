"""How many requests a caller may make: a bucket of tokens for each, filled at a steady rate."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .errors import RateLimited

_CALLERS = 10_000
"""Callers remembered; who asked longest ago is forgotten first, and starts with a full bucket."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateLimit:
    """At most ``per_minute`` requests of one caller within a minute, of which all may come at once; 0 is no limit."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._now = per_minute, now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str) -> None:
        """Counts one request. Raises `RateLimited` with the seconds until the next one may come."""
        if not self._per_minute:
            return
        now, rate = self._now(), self._per_minute / 60
        bucket = self._buckets.setdefault(caller, _Bucket(float(self._per_minute), now))
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        bucket.left = min(float(self._per_minute), bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.left < 1:
            raise RateLimited(
                f"your token may make {self._per_minute} requests a minute.",
                code="rate_limit_exceeded",
                retry_after=(1 - bucket.left) / rate,
            )
        bucket.left -= 1
