"""What a service answers about its dead letters."""

from __future__ import annotations

from pydantic import Field

from lorafleet.responses.reply import Reply


class DeadLetter(Reply):
    """An event that was given up. `body` is None where it is what people wrote, or a key or token."""

    id: str
    consumer: str
    type: str = ""
    subject: str = ""
    domain: str = ""
    event_id: str = ""
    time: str = ""
    deliveries: int = 0
    reason: str = ""
    truncated: bool = False
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None


class DeadLetters(Reply):
    """Newest first; `earlier` counts those that an earlier release wrote, which `lorafleet dlq` has."""

    letters: list[DeadLetter]
    more: bool = False
    earlier: int = 0


class ReplayedLetter(Reply):
    """`outcome`: done, duplicate, published or started."""

    outcome: str
