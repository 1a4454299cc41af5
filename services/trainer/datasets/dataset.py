"""Samples, preferences, and the versions of data sets that are made of them."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fleet_events import v1

LIVE = "live"
"""Name of the data sets that are frozen from a domain's recorded samples without a name."""
MAX_CHARACTERS = 200_000
"""Longest prompt or completion: far beyond any context window, and within what full-text search can index."""


Format = Literal["records", "jsonl", "csv", "parquet", "folder"]
"""What a source's file is. records: lines of `Record.values`; folder: what `save_to_disk` of `datasets` writes."""


Context = tuple[tuple[str, str], ...]
"""What precedes a prompt: system message and earlier turns, (role, content) each."""


class InvalidSample(ValueError):
    """A sample that cannot be kept. Names the field, what it holds and what would be right."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(f"{field}: {found}, expected {expected}")
        self.field, self.found, self.expected = field, found, expected


@dataclass(frozen=True)
class Sample:
    """A prompt and the completion wanted for it. `rating` is 0 to 5 where it was rated.

    `context` is what precedes the prompt. `rater`: whose feedback on the answer `source_id` made it, if any.
    """

    domain: str
    prompt: str
    completion: str
    rating: float | None = None
    origin: str = ""
    source_id: str = ""
    context: Context = ()
    rater: str = ""
    subject: str = ""
    """Name of the person whom it is about, where it came with one; only its digest is kept."""

    @property
    def sample_id(self) -> str:
        """Digest of the content: the same pair recorded twice in a domain is one sample."""
        return _digest({"domain": self.domain, "prompt": self.prompt, "completion": self.completion}, self.context)

    def check(self) -> None:
        """Raises `InvalidSample` for text that cannot be trained on or stored."""
        check_context(self.context)
        check_text("prompt", self.prompt)
        check_text("completion", self.completion)


@dataclass(frozen=True)
class Preference:
    """Two completions of one prompt, of which `chosen` was preferred; `context`, `source_id`, `rater`: see `Sample`."""

    domain: str
    prompt: str
    chosen: str
    rejected: str
    origin: str = ""
    context: Context = ()
    source_id: str = ""
    rater: str = ""

    @property
    def preference_id(self) -> str:
        """Digest of the content."""
        return _digest(
            {"domain": self.domain, "prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected},
            self.context,
        )

    def check(self) -> None:
        """Raises `InvalidSample`; two equal completions express no preference."""
        check_context(self.context)
        for name, text in (("prompt", self.prompt), ("chosen", self.chosen), ("rejected", self.rejected)):
            check_text(name, text)
        if self.chosen == self.rejected:
            raise InvalidSample("rejected", "the same text as chosen", "another completion than chosen")


@dataclass(frozen=True)
class Ranking:
    """Three or more completions of one prompt in the order of one rater, the best first."""

    domain: str
    prompt: str
    completions: tuple[str, ...]
    generation_ids: tuple[str, ...]
    context: Context
    rater: str

    @property
    def ranking_id(self) -> str:
        """Digest of conversation and rater: each has one order of its answers."""
        return _digest({"domain": self.domain, "prompt": self.prompt, "rater": self.rater}, self.context)


@dataclass(frozen=True)
class StoredDataset:
    """A version of a data set by its name within a domain, and the selection of live records that made it, if one did.

    `version` counts up from 1 within (domain, name). The same content under the same name is the same version.
    """

    dataset: v1.Dataset
    domain: str
    query: str
    min_rating: float | None
    created_at: datetime
    name: str = LIVE
    version: int = 1
    removed_at: datetime | None = None
    """Since when its file may be gone; `removed_because` has why."""
    removed_because: str = ""


@dataclass(frozen=True)
class StoredUpload:
    """An uploaded file in the object store; its id is the digest of the bytes that came.

    `erased_by`: erasures that took rows of people out of it, which leaves a file of another digest.
    """

    domain: str
    filename: str
    format: Format
    blob: v1.Blob
    created_at: datetime
    came_as: str = ""
    """Digest of the bytes that came, where it is not that of `blob`."""
    erased_by: tuple[str, ...] = ()

    @property
    def upload_id(self) -> str:
        return self.came_as or self.blob.sha256


def check_context(context: Context) -> None:
    """Raises `InvalidSample` for what precedes a prompt and cannot be kept."""
    for _, text in context:
        check_text("messages", text)


def check_text(field: str, text: str) -> None:
    """Raises `InvalidSample` for blank or over-long text, and for what PostgreSQL or Arrow cannot hold."""
    if not text.strip():
        raise InvalidSample(field, "blank", "text")
    if len(text) > MAX_CHARACTERS:
        raise InvalidSample(field, f"{len(text)} characters", f"at most {MAX_CHARACTERS}")
    check_characters(field, text)


def check_characters(field: str, text: str) -> None:
    """Raises `InvalidSample` for characters that PostgreSQL or Arrow cannot hold."""
    if "\x00" in text:
        raise InvalidSample(field, f"a NUL character at position {text.index(chr(0))}", "text without NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSample(
            field, f"half a surrogate pair at position {error.start}", "text that is valid Unicode"
        ) from error


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(value: dict[str, str], context: Context) -> str:
    # Without context as in releases that had none: what they recorded keeps its id.
    whole = {**value, "context": _canonical(context)} if context else value
    return hashlib.sha256(_canonical(whole).encode()).hexdigest()
