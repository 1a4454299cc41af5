"""The key-value buckets of the bus: what replicas of a service announce of themselves."""

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["BUCKETS", "POSITIONS", "REPLICAS", "Bucket"]


@dataclass(frozen=True)
class Bucket:
    """A key-value bucket: what the replicas of one service announce, dropped when it is not announced again.

    It is no event and nothing is rebuilt from it. `ttl` is how long a value stays without renewal.
    """

    name: str
    service: str
    """Who alone may write it."""
    ttl: timedelta
    what: str
    readers: tuple[str, ...] = ()
    """Services that may watch it too."""

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
BUCKETS = (REPLICAS, POSITIONS)
