"""Settings of the judges that are language models."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

OWN_FIELDS = frozenset({"model", "messages", "n", "stream", "seed", "response_format", "tools"})
"""Fields of a request that the judging itself sets."""


def _steady() -> dict[str, JsonValue]:
    return {"temperature": 0.0, "max_tokens": 2000}


class JudgeSettings(BaseModel):
    """One judge: an OpenAI-compatible endpoint (`POST {url}/chat/completions`) and how it is called."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    """With the version, for example https://api.openai.com/v1."""
    model: str = Field(min_length=1)
    key_file: Path | None = None
    """File with the bearer key; read for every request, so that a rotated key needs no restart."""
    answers: Literal["json_schema", "json_object", "text"] = "json_schema"
    """How the endpoint is held to the form of a verdict; what it then sends is checked in any case."""
    parameters: dict[str, JsonValue] = Field(default_factory=_steady)
    """Further fields of each request."""
    samples: int = Field(default=1, ge=1, le=15)
    """Verdicts a sample; their medians count."""
    attempts: int = Field(default=3, ge=1, le=10)
    """Answers requested until one is a verdict; then the sample is unjudged."""
    tries: int = Field(default=5, ge=1, le=20)
    """Sends of one request that the endpoint is too busy for or does not answer."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds of one try."""
    longest_wait: float = Field(default=60.0, ge=0)
    """Seconds between two tries at most; an endpoint that wants more is called by the next delivery."""
    concurrency: int = Field(default=4, ge=1, le=256)
    """Requests in flight at once, of one replica."""
    prompt_price: float = Field(default=0.0, ge=0)
    """For a million prompt tokens, in the currency of `budget`."""
    answer_price: float = Field(default=0.0, ge=0)
    """For a million answer tokens."""
    budget: float | None = Field(default=None, gt=0)
    """What one evaluation may cost, or one rollout's live answers; samples and answers beyond it are unjudged. Requests
    in flight may end above it."""
    budget_tokens: int | None = Field(default=None, ge=1)
    """Tokens that one evaluation may take, or one rollout's live answers, prompt and answer."""
    rules_first: bool = False
    """Ask only about samples that the reference judge cannot decide."""

    pairwise: bool = False
    """Also compare a version's answers with those of the version that it would replace, pair by pair."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("is no URL of an endpoint; write for example https://api.openai.com/v1")
        return url.rstrip("/")

    @field_validator("parameters")
    @classmethod
    def _leaves_own_fields(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OWN_FIELDS & parameters.keys()):
            raise ValueError(f"{', '.join(taken)}: set by the judging itself; leave it out")
        return parameters

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.key_file and urlsplit(self.url).scheme == "http" and not _is_loopback(urlsplit(self.url).hostname):
            raise ValueError("url: a key goes out over https only (or to loopback); write https://")
        if self.samples > 1 and not self.parameters.get("temperature"):
            raise ValueError(
                "parameters.temperature: several samples at temperature 0 are the same one; write for example 0.7"
            )
        if self.budget is not None and not (self.prompt_price or self.answer_price):
            raise ValueError("budget: without prompt_price and answer_price nothing costs; give them, or budget_tokens")
        return self


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
