"""The issuer's public keys (RFC 7517), read in the background so that no request waits for the issuer.

Where they are may be given as the issuer's discovery document (OpenID Connect Discovery 1.0), which is then read with
them: as often, as long kept, and as bounded.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import JsonValue

from fleet_events.strict_json import read_json
from fleet_kit.errors import Problem

__all__ = ["DISCOVERY", "KeySet", "SigningKey", "UnknownKey"]

log = structlog.get_logger()

MAX_BYTES = 1 << 20
MAX_KEYS = 100
MAX_KEY_ID = 200
FETCH_SECONDS = 5.0
BETWEEN_ATTEMPTS = 10.0
"""Shortest time (s) between two reads, for any reason: unknown key ids must not make us read."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

DISCOVERY = "/.well-known/openid-configuration"
"""End of the URL of a discovery document."""
ALGORITHMS = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256"}
"""Type and curve of a key → the one algorithm that it verifies with."""
RSA_BITS = 2048
"""Fewest of an RSA key (RFC 7518, section 3.3)."""
_PARTS = ("kty", "crv", "x", "y", "n", "e")

Fetch = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key and the one algorithm that it is for: a token's header does not choose."""

    algorithm: str
    key: Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


class UnknownKey(Exception):
    """No key of the set has this id."""


class KeySet:
    """Keys by id, from a file or an https URL (http on loopback).

    Args:
        source: path or URL of the set, or URL of the issuer's discovery document (it ends with `DISCOVERY`).
        issuer: what a discovery document must name as its issuer.
        max_age: seconds after which the keys are read again, beside the requests that still use them.
        keep: seconds for which keys that could not be read again are still good. A key that the issuer withdrew
            while it could not be reached is accepted for as long.
        between: shortest time in seconds between two reads.
        tls: verifies the server of an https URL; None: by the public authorities.

    Raises:
        ValueError: an http URL of another machine, or `keep` below `max_age`.
    """

    def __init__(
        self,
        source: str,
        *,
        issuer: str = "",
        max_age: float = 300.0,
        keep: float = 43_200.0,
        between: float = BETWEEN_ATTEMPTS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if keep < max_age:
            raise ValueError(f"jwks_keep_seconds is {keep:g}, it must be at least jwks_max_age_seconds ({max_age:g})")
        self._fetch = _reader(source, issuer, tls)
        self._source = source
        self._max_age = max_age
        self._keep = keep
        self._between = between
        self._keys: dict[str, SigningKey] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._awaited = False
        self._reading: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> SigningKey:
        """The key of this id, at once where keys are known.

        Raises:
            UnknownKey: there is none. The set is read again in the background, so that a new key is found soon.
            Problem: 503, no keys could be read so far, or not for `keep` seconds.
        """
        now = time.monotonic()
        if now - self._read_at > self._max_age or kid not in self._keys:
            self._read_again(now)
        if self._reading is not None and self._awaited:
            await asyncio.shield(self._reading)
        if time.monotonic() - self._read_at > self._keep:
            detail = "the issuer's key set cannot be read, so no token can be verified"
            raise Problem(503, "Temporarily unavailable", detail, retry_after=2)
        if kid not in self._keys:
            raise UnknownKey("its key id is not in the issuer's key set")
        return self._keys[kid]

    def _read_again(self, now: float) -> None:
        # Without any key nothing can be served, so the first read is tried more often than later ones.
        between = self._between if self._keys else min(1.0, self._between)
        if self._reading is None and now - self._tried_at >= between:
            self._tried_at = now
            # After a quiet time the keys may be long outdated: requests wait once for new ones. While reads fail
            # no request waits; known keys stay good.
            self._awaited = now - self._read_at > (self._keep if self._failed else 2 * self._max_age)
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = keys_of(await self._fetch())
            self._read_at = time.monotonic()
            self._failed = False
        except (OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._failed = True
            log.warning("key_set_unreadable", source=self._source, reason=str(error) or type(error).__name__)
        finally:
            self._reading = None


def keys_of(document: bytes) -> dict[str, SigningKey]:
    """The keys of a key set document that tokens are signed with, by their ids.

    Keys for other purposes are passed over, and so are, with a line in the log, those that cannot be read or are weak.

    Raises:
        ValueError: it is no key set, is too large, or holds no key that tokens can be verified with.
    """
    body = _object(document, "key set")
    listed = body.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"key set must be an object with at most {MAX_KEYS} 'keys'")
    found: dict[str, SigningKey] = {}
    for one in listed:
        if not isinstance(one, dict):
            continue
        kid, algorithm = one.get("kid"), ALGORITHMS.get((str(one.get("kty")), _curve(one)))
        if algorithm is None or one.get("alg", algorithm) != algorithm or one.get("use", "sig") != "sig":
            continue
        if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KEY_ID:
            continue
        try:
            found[kid] = _signing_key(one, algorithm)
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            log.warning("key_passed_over", kid=kid, reason=str(error))
    if not found:
        raise ValueError("key set holds no Ed25519, P-256 or RSA key with an id ('kid') that can be read")
    return found


def _curve(key: Mapping[str, JsonValue]) -> str | None:
    curve = key.get("crv")
    return curve if isinstance(curve, str) else None


def _signing_key(given: Mapping[str, JsonValue], algorithm: str) -> SigningKey:
    public = {name: given[name] for name in _PARTS if name in given}  # never a private part
    key = jwt.PyJWK.from_dict(public, algorithm=algorithm).key
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
        raise ValueError("it is no public key")
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits, at least {RSA_BITS} are needed")
    return SigningKey(algorithm, key)


def _object(document: bytes, what: str) -> dict[str, JsonValue]:
    if len(document) > MAX_BYTES:
        raise ValueError(f"{what} has more than {MAX_BYTES} bytes")
    body = read_json(document)
    if not isinstance(body, dict):
        raise ValueError(f"{what} must be a JSON object")
    return body


def _reader(source: str, issuer: str, tls: ssl.SSLContext | None) -> Fetch:
    if not source.startswith(("http://", "https://")):
        return lambda: asyncio.to_thread(_read_file, Path(source))
    _check_url(source)
    if source.endswith(DISCOVERY):
        return lambda: _discover(source, issuer, tls)
    return lambda: _download(source, tls)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError(f"jwks is {url!r}, expected https://: a key set changed on its way lets others sign tokens")


async def _discover(url: str, issuer: str, tls: ssl.SSLContext | None) -> bytes:
    """The key set that an issuer's discovery document names; raises ValueError for another issuer's document."""
    found = _object(await _download(url, tls), "discovery document")
    if found.get("issuer") != issuer:
        raise ValueError(f"the discovery document is of the issuer {str(found.get('issuer'))[:200]!r}, not {issuer!r}")
    where = found.get("jwks_uri")
    if not isinstance(where, str):
        raise ValueError("the discovery document names no jwks_uri")
    _check_url(where)
    return await _download(where, tls)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


async def _download(url: str, tls: ssl.SSLContext | None) -> bytes:
    body = bytearray()
    verified = httpx.AsyncClient(timeout=FETCH_SECONDS, verify=tls or True)
    async with verified as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError(f"key set has more than {MAX_BYTES} bytes")
    return bytes(body)
