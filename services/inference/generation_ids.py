"""Ids of answers that name their adapter, so that feedback finds it after a restart and on any replica."""

import base64
import binascii
import hmac
import secrets
from hashlib import sha256

from services.inference.errors import NotFound

PREFIX = "gen-"
RANDOM = 12
MAC = 12


def unknown_generation(generation_id: str) -> NotFound:
    """Of an id that is not ours, and of one whose answer came from a domain that the caller does not reach."""
    return NotFound(
        f"unknown generation id {generation_id[:80]!r}; use the `id` of the completion response.",
        code="generation_not_found",
        param="generation_id",
    )


class GenerationIds:
    """Makes and reads ids: random bytes, a truncated HMAC-SHA256 (RFC 2104), the adapter's id.

    `secret` is one that all replicas share; the signing key is derived from it.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"lorafleet generation id v1", "sha256")

    def new(self, adapter_id: str) -> str:
        """A fresh id; `adapter_id` is empty for the base model."""
        body = secrets.token_bytes(RANDOM)
        name = adapter_id.encode()
        packed = body + self._mac(body + name) + name
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    def adapter_id(self, generation_id: str) -> str:
        """Which adapter gave the answer, empty for the base model. Raises `NotFound` for an id that is not ours."""
        try:
            encoded = generation_id.removeprefix(PREFIX)
            packed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            body, mac, name = packed[:RANDOM], packed[RANDOM : RANDOM + MAC], packed[RANDOM + MAC :]
            genuine = generation_id.startswith(PREFIX) and hmac.compare_digest(mac, self._mac(body + name))
            adapter_id = name.decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            genuine = False
        if not genuine:
            raise unknown_generation(generation_id)
        return adapter_id

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, sha256)[:MAC]
