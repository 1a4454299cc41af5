"""Who calls: EdDSA-signed JSON Web Tokens, verified from a key set without asking another service.

A token carries scopes (what may be done) and domains (where: the tenancy boundary).
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleet_kit.errors import Problem

__all__ = ["SCOPES", "Caller", "LocalIssuer", "Verifier", "require"]

SCOPES = (
    "adapters:read",
    "adapters:write",
    "adapters:approve",
    "train",
    "generate",
    "candidates",  # generate with versions that are still being judged: the evaluator alone
    "feedback",
    "metrics",  # read /metrics: Prometheus
    "admin",
)
AUDIENCE = "lorafleet"
KEYS_MAX_AGE = 300.0


@dataclass(frozen=True)
class Caller:
    """Who calls, what they may do and in which domains ("*" is every domain)."""

    subject: str
    scopes: frozenset[str]
    domains: frozenset[str]

    def can(self, scope: str) -> bool:
        """Whether the token carries the scope."""
        return scope in self.scopes

    def reaches(self, domain: str) -> bool:
        """Whether the token's domains include this one."""
        return "*" in self.domains or domain in self.domains

    def reach(self, domain: str) -> None:
        """Raise a 403 `Problem` unless the token's domains include this one."""
        if not self.reaches(domain):
            raise Problem(
                403, "Domain not allowed", f"this token reaches {sorted(self.domains)}, not {domain!r}", field="domain"
            )


class Verifier:
    """Checks tokens against a key set from a file or an https URL, which is read again when a key is unknown."""

    def __init__(self, jwks: str, issuer: str) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = 0.0
        self._lock = asyncio.Lock()

    async def verify(self, token: str) -> Caller:
        """The caller; raises a 401 `Problem`."""
        try:
            kid = str(jwt.get_unverified_header(token).get("kid", ""))
            claims = jwt.decode(
                token,
                await self._key(kid),
                algorithms=["EdDSA"],
                issuer=self._issuer,
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Problem(401, "Not authenticated", f"bearer token refused: {error}") from error
        return Caller(
            subject=str(claims["sub"]),
            scopes=frozenset(str(claims.get("scope", "")).split()),
            domains=frozenset(map(str, claims.get("domains", []))),
        )

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._lock:
            age = time.monotonic() - self._read_at
            # An unknown key may be new, but a stranger must not make us read on each request.
            if not self._keys or age > KEYS_MAX_AGE or (kid not in self._keys and age > 1):
                self._keys = {key.key_id or "": key for key in jwt.PyJWKSet.from_json(await self._read()).keys}
                self._read_at = time.monotonic()
            if kid not in self._keys:
                raise jwt.InvalidKeyError(f"key {kid!r} is not in the key set")
            return self._keys[kid]

    async def _read(self) -> str:
        if self._jwks.startswith("https://"):
            async with httpx.AsyncClient(timeout=5) as client:
                return (await client.get(self._jwks)).raise_for_status().text
        return await asyncio.to_thread(Path(self._jwks).read_text)


_bearer = HTTPBearer(auto_error=False, description="EdDSA-signed JSON Web Token")


def require(*scopes: str) -> Callable[[Request, HTTPAuthorizationCredentials | None], Awaitable[Caller]]:
    """A FastAPI dependency: the caller, who must hold every one of these scopes.

    The application keeps its `Verifier` in `app.state.verifier`.
    """
    unknown = set(scopes) - set(SCOPES)
    if unknown:
        raise ValueError(f"unknown scopes {sorted(unknown)}; known are {SCOPES}")

    async def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Caller:
        if credentials is None:
            raise Problem(401, "Not authenticated", "send a token: Authorization: Bearer <token>")
        verifier: Verifier = request.app.state.verifier
        found = await verifier.verify(credentials.credentials)
        missing = sorted(set(scopes) - found.scopes)
        if missing:
            raise Problem(403, "Scope missing", f"this token lacks the scope {missing[0]!r}", scope=missing[0])
        return found

    return caller


class LocalIssuer:
    """Signs tokens for a local fleet; production uses an OIDC issuer's key set instead."""

    def __init__(self, key: Ed25519PrivateKey, kid: str) -> None:
        self._key = key
        self._kid = kid

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make the signing key (issuer.pem, readable by the owner alone) and its key set (jwks.json)."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        issuer = cls(Ed25519PrivateKey.generate(), secrets.token_hex(8))
        pem = issuer._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write_secret(folder / "issuer.pem", pem)
        (folder / "jwks.json").write_text(json.dumps(issuer.jwks()))
        return issuer

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The issuer that `create` left in a folder; raises FileNotFoundError."""
        key = serialization.load_pem_private_key((folder / "issuer.pem").read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{folder / 'issuer.pem'} must hold an Ed25519 key")
        kid = json.loads((folder / "jwks.json").read_text())["keys"][0]["kid"]
        return cls(key, str(kid))

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key set (RFC 7517, RFC 8037)."""
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**public, "kid": self._kid, "use": "sig", "alg": "EdDSA"}]}

    def mint(
        self, subject: str, scopes: Iterable[str], domains: Iterable[str] = ("*",), ttl: timedelta = timedelta(days=30)
    ) -> str:
        """A signed token."""
        wanted = tuple(scopes)
        unknown = set(wanted) - set(SCOPES)
        if unknown:
            raise ValueError(f"unknown scopes {sorted(unknown)}; known are {', '.join(SCOPES)}")
        now = int(time.time())
        claims = {
            "iss": "lorafleet",
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + int(ttl.total_seconds()),
            "scope": " ".join(wanted),
            "domains": list(domains),
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
