"""What the registry takes and answers about API keys and revoked tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet_events.text import Text
from fleet_kit.caller import LONGEST_LIFE, SCOPES
from services.registry.schemas import Reason
from services.registry.store.credentials import KeyRow
from services.registry.view import View

Scope = Literal[SCOPES]  # type: ignore[valid-type]
"""One of the fleet's scopes."""


class NewKey(BaseModel):
    """An API key to be made: what it may do, where and for how long."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, Field(min_length=1, max_length=100, description="What it is for")]
    scopes: list[Scope] = Field(min_length=1, max_length=len(SCOPES))
    domains: list[Annotated[Text, Field(max_length=63)]] = Field(
        min_length=1, max_length=1000, description="Exact names, or '*' alone for every domain"
    )
    expires_seconds: int = Field(
        default=90 * 86_400, ge=60, le=int(LONGEST_LIFE.total_seconds()), description="From now on"
    )


class KeyView(View):
    """An API key. What it is verified by is never shown."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    domains: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = Field(description="To the minute")
    revoked_at: datetime | None
    revoked_by: str | None
    reason: str


class CreatedKey(KeyView):
    """A new API key with its text, which is shown this once."""

    key: str = Field(description="Sent as the bearer token; it cannot be shown again")

    @classmethod
    def with_text(cls, row: KeyRow, text: str) -> Self:
        return cls(**KeyView.model_validate(row).model_dump(), key=text)


class KeyList(View):
    """API keys, newest first."""

    keys: list[KeyView]


class Revocation(Reason):
    """Tokens to be revoked: one by its id, or all of a subject that were issued until now."""

    jti: Annotated[Text, Field(max_length=300)] = ""
    subject: Annotated[Text, Field(max_length=300)] = ""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.jti) == bool(self.subject):
            raise ValueError("give jti, or subject")
        return self


class RevokedView(View):
    """Tokens that are revoked, and until when that is remembered: they have ended by themselves then."""

    named_by: str
    value: str
    revoked_at: datetime
    until: datetime
