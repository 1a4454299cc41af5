"""`ResponseStore`: responses that their callers may read, continue and delete, on any replica, for a day."""

import asyncio
import hmac
import json
import re
import secrets
import zlib
from hashlib import sha256
from typing import Final

import nats.errors
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import Counter
from pydantic import BaseModel, Field, JsonValue

from fleet_kit.auth import Caller
from fleet_kit.caller import EVERY_DOMAIN
from fleet_kit.faults import describe
from fleet_kit.key_value import KeyValue
from services.inference.errors import Busy, NotFound
from services.inference.http.messages import ChatMessage
from services.inference.http.responses.output import Delta

log = structlog.get_logger()

KEPT = Counter(
    "lorafleet_inference_responses_kept_total",
    "Responses that were to be kept for their callers, by what came of it (kept, too_large, unavailable)",
    ["outcome"],
)
MOST_BYTES: Final = 700_000
"""Of one, sealed: read from the bus in base64, it has to fit a message of 1 MiB."""
MOST_PEOPLE: Final = 32
"""Whom one is about: each is a write of its own."""
_OF: Final = "of"
"""Keys `of.<digest of a person>.<response id>`: domains whose adapters answered in it."""
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,500}")
_NONCE: Final = 12
_AWAY = (nats.errors.Error, OSError, TimeoutError)


class KeptResponse(BaseModel):
    """A response and the conversation up to its end. domains: those whose adapters answered in it. inputs: how many of
    the turns are before the answer; deltas: in what pieces its text came. Both are None of one that an earlier release
    kept. people: digests of those whom it is about, of the responses that it continues too."""

    response: dict[str, JsonValue]
    turns: list[ChatMessage]
    domains: list[str] = Field(default_factory=list)
    inputs: int | None = None
    deltas: list[Delta] | None = None
    people: list[str] = Field(default_factory=list)


class ResponseStore:
    """Keeps each response under its id, encrypted for the subject of the token that asked for it.

    The bus holds what people wrote: so it leaves the process as AES-256-GCM (NIST SP 800-38D) under a key that only
    replicas have, with id and subject authenticated. Of another subject's response nothing can be told but that there
    is none. Beside it the bus holds its domains under a keyed digest of each person whom it is about: so it is found
    when one of them is forgotten.

    Args:
        bucket: where; its time to live and its room bound what is kept, the oldest leave first.
        secret: one that all replicas share; the key is derived from it.
    """

    def __init__(self, bucket: KeyValue, secret: bytes) -> None:
        self._bucket = bucket
        self._person_key = hmac.digest(secret, b"lorafleet person of kept response v1", sha256)
        self._cipher = AESGCM(hmac.digest(secret, b"lorafleet kept response v1", sha256))

    async def keep(self, response_id: str, caller: Caller, kept: KeptResponse, *, person: str = "") -> bool:
        """Store it; whether it could be. person: whom it is about, the caller where it is empty."""
        people = sorted({*kept.people, self._digest(person or caller.subject)})
        kept = kept.model_copy(update={"people": people})
        sealed = await asyncio.to_thread(self._sealed, response_id, caller, kept)
        if len(sealed) > MOST_BYTES or len(people) > MOST_PEOPLE:
            KEPT.labels("too_large").inc()
            return False
        try:
            # First: what is kept is found by whom it is about, wherever this process ends.
            for one in people:
                await self._bucket.put(f"{_OF}.{one}.{response_id}", json.dumps(kept.domains).encode())
            await self._bucket.put(response_id, sealed)
        except _AWAY as error:
            KEPT.labels("unavailable").inc()
            log.warning("response_not_kept", response_id=response_id, reason=describe(error))
            return False
        KEPT.labels("kept").inc()
        return True

    async def find(self, response_id: str, caller: Caller) -> KeptResponse:
        """The caller's own response.

        Raises:
            NotFound: there is none, or it is another caller's, or one of a domain that the caller no longer reaches.
            Busy: the bus is unavailable.
        """
        if not _KEY.fullmatch(response_id):
            raise _missing(response_id)
        try:
            sealed = await self._bucket.get(response_id)
        except _AWAY as error:
            log.warning("response_not_read", response_id=response_id, reason=describe(error))
            raise _unavailable() from error
        kept = await asyncio.to_thread(self._opened, response_id, caller, sealed or b"")
        if kept is None or not all(caller.reaches(domain) for domain in kept.domains):
            raise _missing(response_id)
        return kept

    async def forget(self, response_id: str, caller: Caller) -> None:
        """Delete the caller's own response; raises what `find` raises."""
        kept = await self.find(response_id, caller)
        try:
            await self._bucket.delete(response_id)
            for one in kept.people:
                await self._bucket.delete(f"{_OF}.{one}.{response_id}")
        except _AWAY as error:
            raise _unavailable() from error

    async def erase(self, person: str, domain: str) -> int:
        """Delete what is about a person in a domain ("*": in all, and of no domain); returns how many responses.

        Raises what the bus raises; again is the same.
        """
        erased = 0
        for key in await self._bucket.keys(f"{_OF}.{self._digest(person)}.*"):
            domains = await self._bucket.get(key)
            if domains is None or (domain != EVERY_DOMAIN and domain not in json.loads(domains)):
                continue
            response_id = key.rpartition(".")[2]
            # It may have gone with another person whom it was about.
            erased += await self._bucket.get(response_id) is not None
            await self._bucket.delete(response_id)
            await self._bucket.delete(key)
        return erased

    def _digest(self, person: str) -> str:
        return hmac.digest(self._person_key, person.encode(), sha256).hex()[:32]

    def _sealed(self, response_id: str, caller: Caller, kept: KeptResponse) -> bytes:
        text, nonce = kept.model_dump_json(exclude_unset=True).encode(), secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, zlib.compress(text), _bound_to(response_id, caller))

    def _opened(self, response_id: str, caller: Caller, sealed: bytes) -> KeptResponse | None:
        try:
            packed = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound_to(response_id, caller))
            return KeptResponse.model_validate_json(zlib.decompress(packed))
        except (InvalidTag, ValueError):  # another's, or of a release with other members
            return None


def _bound_to(response_id: str, caller: Caller) -> bytes:
    return json.dumps([response_id, caller.subject]).encode()


def _missing(response_id: str) -> NotFound:
    message = f"response {response_id[:80]!r} does not exist, was not stored, or is not kept any more."
    return NotFound(message, code="response_not_found", param="response_id")


def _unavailable() -> Busy:
    return Busy("stored responses cannot be reached now; try again.", code="store_unavailable", retry_after=2)
