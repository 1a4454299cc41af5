"""Samples and the immutable data sets frozen from them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fleet_events import v1

MAX_CHARACTERS = 200_000
"""Longest prompt or completion: far beyond any context window, and within what full-text search can index."""


class InvalidSample(ValueError):
    """A sample that cannot be kept. Names the field, what it holds and what would be right."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(f"{field}: {found}, expected {expected}")
        self.field = field


@dataclass(frozen=True)
class Sample:
    """A prompt and the completion wanted for it. `rating` is 0 to 5 where somebody rated it."""

    domain: str
    prompt: str
    completion: str
    rating: float | None = None
    origin: str = ""
    source_id: str = ""

    @property
    def sample_id(self) -> str:
        """Digest of the content: the same pair recorded twice in a domain is one sample."""
        return _digest({"domain": self.domain, "prompt": self.prompt, "completion": self.completion})

    def check(self) -> None:
        """Raises `InvalidSample` for text that nobody could train on or store."""
        _check_text("prompt", self.prompt)
        _check_text("completion", self.completion)


@dataclass(frozen=True)
class Preference:
    """Two completions of one prompt, of which `chosen` was preferred."""

    domain: str
    prompt: str
    chosen: str
    rejected: str
    origin: str = ""

    @property
    def preference_id(self) -> str:
        """Digest of the content."""
        return _digest({"domain": self.domain, "prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected})

    def check(self) -> None:
        """Raises `InvalidSample`; two equal completions express no preference."""
        for name, text in (("prompt", self.prompt), ("chosen", self.chosen), ("rejected", self.rejected)):
            _check_text(name, text)
        if self.chosen == self.rejected:
            raise InvalidSample("rejected", "the same text as chosen", "another completion than chosen")


@dataclass(frozen=True)
class FrozenDataset:
    """Canonical JSONL bytes; the id is their SHA-256."""

    dataset_id: str
    domain: str
    body: bytes
    samples: int


@dataclass(frozen=True)
class StoredDataset:
    """A frozen data set and the selection that first made it."""

    dataset: v1.Dataset
    domain: str
    query: str
    min_rating: float | None
    created_at: datetime


def freeze(domain: str, samples: Iterable[Sample]) -> FrozenDataset:
    """The samples as canonical JSONL: one per line, sorted by sample id, keys sorted, UTF-8.

    The same samples give the same bytes whatever their order or number of recordings. The domain is part of every
    line, so that equal pairs of two domains never become one data set that both own.
    """
    lines = {
        sample.sample_id: _canonical(
            {
                "completion": sample.completion,
                "domain": sample.domain,
                "id": sample.sample_id,
                "prompt": sample.prompt,
            }
        )
        for sample in samples
    }
    body = "".join(lines[sample_id] + "\n" for sample_id in sorted(lines)).encode()
    return FrozenDataset(hashlib.sha256(body).hexdigest(), domain, body, len(lines))


def _check_text(field: str, text: str) -> None:
    if not text.strip():
        raise InvalidSample(field, "blank", "text")
    if len(text) > MAX_CHARACTERS:
        raise InvalidSample(field, f"{len(text)} characters", f"at most {MAX_CHARACTERS}")
    if "\x00" in text:
        raise InvalidSample(field, f"a NUL character at position {text.index(chr(0))}", "text without NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSample(
            field, f"half a surrogate pair at position {error.start}", "text that is valid Unicode"
        ) from error


def _canonical(value: dict[str, str]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(value: dict[str, str]) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()
