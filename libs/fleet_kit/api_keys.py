"""API keys: `lf_<id>_<secret>`, for clients of the OpenAI API and other programs that cannot renew a token.

The secret is 256 random bits, so its SHA-256 is as hard to invert as it is to guess: a slow hash (argon2, bcrypt) makes
up for what people choose as passwords, and would cost every request tens of milliseconds here.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

__all__ = ["PREFIX", "SUBJECT", "ApiKey", "same_secret"]

PREFIX = "lf_"
SUBJECT = "key:"
"""Before a key's id it is the subject that the key calls as. No token may have a subject that begins so."""
_FORM = re.compile(r"lf_(?P<id>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner holds it."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """A key that nobody holds yet."""
        return cls(secrets.token_hex(8), secrets.token_urlsafe(32))

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The key that this text is; None where it has another form."""
        found = _FORM.fullmatch(text)
        return cls(found["id"], found["secret"]) if found else None

    @property
    def text(self) -> str:
        """What is sent as the bearer token."""
        return f"{PREFIX}{self.key_id}_{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """What is kept of the secret, lower-case hex."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def same_secret(key: ApiKey, secret_sha256: str) -> bool:
    """Whether the key's secret has this digest; takes the same time wherever they differ."""
    return hmac.compare_digest(key.secret_sha256, secret_sha256)
