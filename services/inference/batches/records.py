"""What the bus keeps of a file and of a batch, and both as OpenAI's API has them.

https://platform.openai.com/docs/api-reference/batch/object and .../files/object.
"""

import secrets
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import Blob
from fleet_kit.caller import EVERY_DOMAIN, Caller

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
ENDED: frozenset[Status] = frozenset({"failed", "completed", "expired", "cancelled"})
WINDOW_SECONDS = 24 * 3600
"""Of `completion_window`."""
MOST_LOST = 5
"""Holders that may die in a row: a line that ends the process must not end one replica after the other."""
MOST_ERRORS = 100
"""Faults of lines that a batch lists."""


class Owner(BaseModel):
    """The caller that made it, with the rights under which its lines run."""

    model_config = ConfigDict(frozen=True)

    subject: str
    scopes: frozenset[str]
    domains: frozenset[str]
    token_id: str = ""
    """Of the token that made it, by which that may be revoked; empty for an API key."""

    @classmethod
    def of(cls, caller: Caller) -> "Owner":
        # Of scopes that differ by domain, those that count in all of these domains, as they do online.
        scopes = frozenset(scope for scope in caller.scopes if caller.can(scope))
        return cls(subject=caller.subject, scopes=scopes, domains=caller.domains, token_id=caller.token_id)

    @property
    def caller(self) -> Caller:
        return Caller(self.subject, self.scopes, self.domains)

    def shown_to(self, caller: Caller) -> bool:
        """Whether it exists for this caller: the same subject, reaching all of the domains."""
        return caller.subject == self.subject and (EVERY_DOMAIN in caller.domains or self.domains <= caller.domains)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileRecord(_Record):
    """A file; its content is the object `blob`. Times are Unix seconds."""

    id: str
    owner: Owner
    blob: Blob
    filename: str
    purpose: Literal["batch", "batch_output"]
    created_at: int
    expires_at: int

    def shown(self) -> dict[str, object]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.blob.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class LineFault(_Record):
    """Why a file is no batch. line: from 1 on; None: of the file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Counts(_Record):
    """Lines: all, answered, failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Usage(_Record):
    """Tokens of all answers."""

    input_tokens: int = 0
    output_tokens: int = 0

    def shown(self) -> dict[str, object]:
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


class BatchRecord(_Record):
    """A batch. Times are Unix seconds.

    holder: the process that runs it, empty while none does; it writes `beat` again and again, and one that does not
    for the lease's time is dead. So no replica compares its clock with another's.
    """

    id: str
    owner: Owner
    input_file_id: str
    source: Blob
    """The content of that file."""
    endpoint: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None
    """How long its output files are kept, where the request sets it."""
    status: Status = "validating"
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    model: str | None = None
    counts: Counts = Counts()
    usage: Usage | None = None
    errors: tuple[LineFault, ...] = Field(default=(), max_length=MOST_ERRORS)
    output_file_id: str | None = None
    error_file_id: str | None = None
    holder: str = ""
    beat: int = 0
    lost: int = 0
    """Holders that died in a row without a line that was kept."""

    @property
    def given_up(self) -> bool:
        """Whether it is not run any more, since it took its holders with it."""
        return self.lost >= MOST_LOST

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def shown(self) -> dict[str, object]:
        """The batch as OpenAI's API has it."""
        own = {"owner", "source", "output_seconds", "counts", "usage", "errors", "holder", "beat", "lost"}
        return self.model_dump(exclude=own) | {
            "object": "batch",
            "completion_window": "24h",
            "errors": {"object": "list", "data": [one.model_dump() for one in self.errors]} if self.errors else None,
            "request_counts": self.counts.model_dump(),
            "usage": self.usage.shown() if self.usage else None,
        }


def new_id(prefix: str) -> str:
    """An id that nobody guesses; ids sort by the millisecond in which they were made."""
    return f"{prefix}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
