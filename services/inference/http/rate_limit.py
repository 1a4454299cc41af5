"""How many requests a caller may make: a bucket of tokens for each, filled at a steady rate.

Buckets are of this process alone: n replicas allow n times as much, and a restart begins with full ones.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.inference.errors import RateLimited

MOST_CALLERS = 10_000
"""Callers remembered within a minute; of more, the one idle for longest is forgotten and starts with a full bucket."""
_REFILL = 60.0
"""Seconds in which an empty bucket fills: one that was not used for so long is as good as a new one."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateLimit:
    """At most `per_minute` requests of one caller within a minute, of which all may come at once; 0 is no limit.

    However many callers there are and however long their names, what is kept of them is below 4 MB.
    """

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._now = per_minute, now
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Callers that are remembered."""
        return len(self._buckets)

    def take(self, caller: str) -> None:
        """Counts one request. Raises `RateLimited` with the seconds until the next one may come."""
        if not self._per_minute:
            return
        now, rate = self._now(), self._per_minute / _REFILL
        bucket = self._bucket(caller, now)
        bucket.left = min(float(self._per_minute), bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.left < 1:
            raise RateLimited(
                f"your token may make {self._per_minute} requests a minute.",
                code="rate_limit_exceeded",
                retry_after=(1 - bucket.left) / rate,
            )
        bucket.left -= 1

    def _bucket(self, caller: str, now: float) -> _Bucket:
        key = hashlib.blake2b(caller.encode(errors="surrogatepass"), digest_size=16).digest()
        bucket = self._buckets.setdefault(key, _Bucket(float(self._per_minute), now))
        self._buckets.move_to_end(key)
        # Ordered by last use, and each request adds one at most: two a request empty the table of idle callers.
        for _ in range(2):
            oldest = next(iter(self._buckets.values()))
            if len(self._buckets) > MOST_CALLERS or now - oldest.at >= _REFILL:
                if oldest is bucket:
                    break
                self._buckets.popitem(last=False)
        return bucket
