"""What the registry answers about API keys and revoked tokens."""

from __future__ import annotations

from lorafleet.responses.reply import Reply


class ApiKey(Reply):
    """An API key, without its text."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    domains: tuple[str, ...]
    created_by: str
    expires_at: str
    last_used_at: str | None = None
    revoked_at: str | None = None


class CreatedKey(ApiKey):
    """A new API key; its text is in this answer alone."""

    key: str


class RevokedTokens(Reply):
    """Tokens that are good no more."""

    named_by: str
    value: str
    until: str
