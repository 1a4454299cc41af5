"""Ids of answers that name their adapter, so that feedback finds it after a restart and on any replica."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256

from services.inference.errors import NotFound

PREFIX = "gen-"
COMPARISON_PREFIX = "cmp-"
RANDOM = 10
AUTHOR = 2
"""Bytes that tell the replicas apart: which of them gave the answer. Ids of earlier releases have random ones there."""
MAC = 12
_BODY = RANDOM + AUTHOR


def unknown_generation(generation_id: str) -> NotFound:
    """Of an id that is not ours, and of one whose answer came from a domain that the caller does not reach."""
    return NotFound(
        f"unknown generation id {generation_id[:80]!r}; use the `id` of the completion response.",
        code="generation_not_found",
        param="generation_id",
    )


def unknown_comparison(comparison_id: str) -> NotFound:
    """Of an id that is not ours."""
    return NotFound(
        f"unknown comparison id {comparison_id[:80]!r}; use `lorafleet.comparison_id` of the response.",
        code="comparison_not_found",
        param="comparison_id",
    )


@dataclass(frozen=True, slots=True)
class ComparisonIds:
    """One id for answers that are given side by side, from which the id of each of them follows, in their order."""

    comparison_id: str
    generation_ids: tuple[str, ...]


class GenerationIds:
    """Makes and reads ids: random bytes, which replica, a truncated HMAC-SHA256 (RFC 2104), who answered.

    `secret` is one that all replicas share; the signing key is derived from it. `replica`: the name of this one. Who
    answered is an adapter's id; of the base model it is empty, or `@domain` where its answer is that domain's data.
    """

    def __init__(self, secret: bytes, replica: str = "") -> None:
        self._key = hmac.digest(secret, b"lorafleet generation id v1", "sha256")
        self._author = author_tag(replica)

    def new(self, answered_by: str) -> str:
        """A fresh id."""
        return self._packed(PREFIX, secrets.token_bytes(RANDOM) + self._author, answered_by)

    def side_by_side(self, answered_by: Sequence[str]) -> ComparisonIds:
        """Fresh ids of answers that are given side by side."""
        body = secrets.token_bytes(RANDOM) + self._author
        comparison_id = self._packed(COMPARISON_PREFIX, body, "\n".join(answered_by))
        return ComparisonIds(comparison_id, self._compared(body, answered_by))

    def adapter_id(self, generation_id: str) -> str:
        """Which adapter gave the answer, empty for the base model. Raises `NotFound` for an id that is not ours."""
        answered_by = self._read(generation_id)[1]
        return "" if answered_by.startswith("@") else answered_by

    def base_domain(self, generation_id: str) -> str:
        """The domain whose data an answer of the base model is, if it is one's. Raises `NotFound`."""
        answered_by = self._read(generation_id)[1]
        return answered_by.removeprefix("@") if answered_by.startswith("@") else ""

    def author(self, generation_id: str) -> bytes:
        """The tag of the replica that gave the answer, see `author_tag`. Raises `NotFound`."""
        return self._read(generation_id)[0][RANDOM:]

    def compared(self, comparison_id: str) -> tuple[str, ...]:
        """The ids of the answers of a comparison. Raises `NotFound` for an id that is not ours."""
        found = self._opened(COMPARISON_PREFIX, comparison_id)
        if found is None:
            raise unknown_comparison(comparison_id)
        body, names = found
        return self._compared(body, names.split("\n"))

    def _compared(self, body: bytes, answered_by: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            self._packed(PREFIX, self._mac(b"choice %d " % number + body)[:RANDOM] + body[RANDOM:], name)
            for number, name in enumerate(answered_by)
        )

    def _read(self, generation_id: str) -> tuple[bytes, str]:
        found = self._opened(PREFIX, generation_id)
        if found is None:
            raise unknown_generation(generation_id)
        return found

    def _packed(self, prefix: str, body: bytes, text: str) -> str:
        name = text.encode()
        signed = body + self._mac(self._of_kind(prefix) + body + name) + name
        return prefix + base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def _opened(self, prefix: str, identifier: str) -> tuple[bytes, str] | None:
        """Body and text of an id of ours, else None."""
        try:
            encoded = identifier.removeprefix(prefix)
            packed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            body, mac, name = packed[:_BODY], packed[_BODY : _BODY + MAC], packed[_BODY + MAC :]
            genuine = identifier.startswith(prefix) and hmac.compare_digest(
                mac, self._mac(self._of_kind(prefix) + body + name)
            )
            return (body, name.decode()) if genuine else None
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None

    @staticmethod
    def _of_kind(prefix: str) -> bytes:
        # Nothing before an answer's: so ids of earlier releases are read on.
        return b"" if prefix == PREFIX else prefix.encode()

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, sha256)[:MAC]


def author_tag(replica: str) -> bytes:
    """What stands for a replica's name in an id."""
    return blake2b(replica.encode(), digest_size=AUTHOR).digest()
