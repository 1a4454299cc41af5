"""The key-value buckets of the bus: what the replicas of a service announce, and what they keep together."""

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["BATCHES", "BUCKETS", "POSITIONS", "REPLICAS", "RESPONSES", "USED", "Bucket"]


@dataclass(frozen=True)
class Bucket:
    """A key-value bucket of one service's replicas: values that are dropped `ttl` after they were last written.

    It is no event and nothing is rebuilt from it.
    """

    name: str
    service: str
    """Who alone may write it."""
    ttl: timedelta
    what: str
    readers: tuple[str, ...] = ()
    """Services that may watch it too."""
    kept: bool = False
    """Values are on disk and read by their keys, and the oldest leave a full bucket. Else they are announcements: in
    memory, watched, and a full bucket takes no more."""
    listed: bool = False
    """Of what is kept: its keys can be listed."""
    lasting: bool = False
    """Of what is kept: a full bucket takes no further keys; what it holds stays."""
    max_bytes: int = 16 * 1024**2

    @property
    def stream(self) -> str:
        """The stream below it, as every NATS client names it (NATS ADR-8)."""
        return f"KV_{self.name}"

    @property
    def subjects(self) -> str:
        """Subjects of its keys."""
        return f"$KV.{self.name}.>"


REPLICAS = Bucket(
    "LORAFLEET_REPLICAS",
    "inference",
    ttl=timedelta(seconds=5),
    what="which replicas of inference are alive, their addresses, loaded adapters and load",
)
POSITIONS = Bucket(
    "LORAFLEET_POSITIONS",
    "inference",
    ttl=timedelta(seconds=5),
    what="the newest fact about adapters that each replica of inference has applied, as its sequence in the stream",
    readers=("registry",),
)
RESPONSES = Bucket(
    "LORAFLEET_RESPONSES",
    "inference",
    ttl=timedelta(days=1),
    what="responses that their callers may read, continue and delete, encrypted, and digests of whom they are about",
    kept=True,
    listed=True,
    max_bytes=128 * 1024**2,
)
BATCHES = Bucket(
    "LORAFLEET_BATCHES",
    "inference",
    ttl=timedelta(days=30),
    what="files and batches of `/v1/files` and `/v1/batches`: states, owners, which replica runs a batch; no lines",
    kept=True,
    listed=True,
    lasting=True,
    max_bytes=32 * 1024**2,
)
USED = Bucket(
    "LORAFLEET_USED",
    "inference",
    ttl=timedelta(days=62),
    what="what each replica of inference gave of the quotas of domains and callers, this month and this minute",
    kept=True,
    listed=True,
    lasting=True,
    max_bytes=64 * 1024**2,
)
BUCKETS = (REPLICAS, POSITIONS, RESPONSES, BATCHES, USED)
