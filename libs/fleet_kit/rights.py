"""What the bus does not let this process do: a replica that lacks a right is not ready, so a rollout stops at it."""

import time
from collections.abc import Callable

__all__ = ["Rights"]

_SETTLED_SECONDS = 2.0
"""A replica that was ready for so long has made its requests to every durable."""


class Rights:
    """Refusals of one connection. They count until the process has worked once.

    Later ones are logged alone: a replica that works in part is better than none, and an error in the server's
    accounts reaches all replicas at once.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._refused: set[str] = set()
        self._since: float | None = None

    def note(self, error: Exception) -> None:
        """Keep what the server refused; other errors are none of it."""
        text = str(error)
        if "permissions violation" in text.lower() and not self._settled:
            self._refused.add(text.removeprefix("nats: "))

    async def ready(self) -> None:
        """Readiness check: raises PermissionError with one of the refusals."""
        if self._refused:
            raise PermissionError(
                f"NATS refuses: {min(self._refused)}; give it the accounts of this release, then start this again"
            )
        if self._since is None:
            self._since = self._now()

    @property
    def _settled(self) -> bool:
        return self._since is not None and self._now() - self._since > _SETTLED_SECONDS
