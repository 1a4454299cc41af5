"""Whether this process takes new requests."""

from services.inference.errors import Busy


class Gate:
    """Open, or closed while the process is drained: what runs is completed, what is new is sent elsewhere."""

    def __init__(self) -> None:
        self.draining = False

    def require_open(self) -> None:
        """Raises `Busy` while draining."""
        if self.draining:
            raise Busy("this replica is being drained; another one will answer.", code="draining", retry_after=5)

    async def ready(self) -> None:
        """The readiness check: raises RuntimeError while draining."""
        if self.draining:
            raise RuntimeError("it is being drained")
