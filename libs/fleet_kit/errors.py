"""What can go wrong, and what the bus or HTTP makes of it.

On the bus `settle` alone turns these into ack, nak or a dead letter; over HTTP `http` turns `Problem` into an
RFC 9457 body. Nothing else in the code decides either.
"""

__all__ = [
    "BlobCorrupt",
    "BlobMissing",
    "LeaseLost",
    "NotYet",
    "Problem",
    "PublicationRefused",
    "Refused",
    "Unreadable",
]


class Refused(Exception):
    """The event can never work as it is. It becomes a dead letter with this reason."""


class Unreadable(Refused):
    """The body breaks the event's contract. A handler may define what that means (see `Handlers.on`)."""


class PublicationRefused(Exception):
    """JetStream takes this message neither now nor later. The event becomes a dead letter with this reason."""


class NotYet(Exception):
    """The event cannot be handled now, by no fault of its own. It comes again after `after` seconds."""

    def __init__(self, reason: str, after: float = 2.0) -> None:
        super().__init__(reason)
        self.after = after


class LeaseLost(Exception):
    """Another worker has taken the work over; this one must stop and write nothing more."""


class BlobMissing(Exception):
    """The object store has nothing at that address."""


class BlobCorrupt(Exception):
    """The bytes are not those that the digest promises."""


class Problem(Exception):
    """An answer to a bad request, by RFC 9457.

    Args:
        status: HTTP status.
        title: what kind of problem it is, the same for each occurrence.
        detail: what is wrong here and what would be right.
        field: name of the input at fault.
        extensions: further members of the body, for example `next_version`.
    """

    def __init__(self, status: int, title: str, detail: str, *, field: str | None = None, **extensions: object) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.field = field
        self.extensions = extensions

    def body(self) -> dict[str, object]:
        """Members of the application/problem+json body."""
        named = {"field": self.field} if self.field else {}
        return (
            {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
            | named
            | dict(self.extensions)
        )
