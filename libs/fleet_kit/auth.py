"""Who calls: EdDSA-signed JSON Web Tokens, verified from a key set without asking another service.

A token carries scopes (what may be done) and domains (where: the tenancy boundary).
"""

import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from fleet_kit.acting_for import ACT_FOR, read_act_for
from fleet_kit.caller import EVERY_DOMAIN, FLEET_SCOPES, SCOPES, Caller, checked_domains, read_claims
from fleet_kit.errors import Problem
from fleet_kit.key_set import KeySet, UnknownKey

__all__ = ["SCOPES", "Caller", "LocalIssuer", "Verifier", "identify", "is_fleet_token", "require"]

AUDIENCE = "lorafleet"
CALLER = "lorafleet.caller"
"""Where an ASGI scope keeps the `Caller` that is known already."""
MAX_TOKEN = 32_768
"""Characters of a token."""


class Verifier:
    """Checks tokens against an issuer's key set.

    Args:
        jwks: path or URL of the key set, see `KeySet`.
        issuer: what the claim `iss` must be.
        max_age: seconds after which the keys are read again.
        keep: seconds for which keys stay good while the issuer cannot be reached.
    """

    def __init__(self, jwks: str, issuer: str, *, max_age: float = 300.0, keep: float = 43_200.0) -> None:
        self._keys = KeySet(jwks, max_age=max_age, keep=keep)
        self._issuer = issuer

    async def caller_of(self, authorization: str | None, act_for: str | None = None) -> Caller:
        """The caller of a request: its token's, narrowed to the domains that it acts for.

        Args:
            authorization: the header of that name.
            act_for: the header `ACT_FOR`; None where the request has none. It can remove domains and never add
                any, so it is honoured from everybody.

        Raises:
            Problem: 401 without a good bearer token, 400 for an `ACT_FOR` that cannot be read, 503 without keys.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem(401, "Not authenticated", "send a token: Authorization: Bearer <token>")
        caller = await self.verify(token.strip())
        return caller if act_for is None else caller.narrowed(read_act_for(act_for))

    async def verify(self, token: str) -> Caller:
        """The token's caller; raises a `Problem`: 401, or 503 while no keys can be read."""
        try:
            if len(token) > MAX_TOKEN:
                raise ValueError(f"it has {len(token)} characters, at most {MAX_TOKEN} are allowed")
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("alg") != "EdDSA" or not isinstance(kid, str):
                raise ValueError("its header must name a key ('kid') and the algorithm EdDSA")
            claims = jwt.decode(
                token,
                await self._keys.key(kid),
                algorithms=["EdDSA"],
                issuer=self._issuer,
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
            return read_claims(claims)
        # Claims of odd types make PyJWT's own checks fail in their own ways: exp as a list, as 1e400, nested deeply.
        except (jwt.PyJWTError, UnknownKey, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Problem(401, "Not authenticated", f"bearer token refused: {str(error)[:300]}") from None


def is_fleet_token(token: str) -> bool:
    """Whether this is made to be a token of the fleet, good or not: it must go to no server outside of it."""
    try:
        audience = jwt.decode(token, options={"verify_signature": False}).get("aud")
    except jwt.PyJWTError:
        return False
    return audience == AUDIENCE or (isinstance(audience, list) and AUDIENCE in audience)


async def identify(headers: Headers, verifier: Verifier) -> Caller:
    """The caller of a request with these headers; raises what `Verifier.caller_of` raises."""
    # Repeated headers are one list (RFC 9110, section 5.3).
    act_for = ",".join(headers.getlist(ACT_FOR)) if ACT_FOR in headers else None
    return await verifier.caller_of(headers.get("Authorization"), act_for)


_bearer = HTTPBearer(auto_error=False, description="EdDSA-signed JSON Web Token")


def require(*scopes: str) -> Callable[[Request, HTTPAuthorizationCredentials | None], Awaitable[Caller]]:
    """A FastAPI dependency: the caller, who must hold every one of these scopes.

    The application keeps its `Verifier` in `app.state.verifier`.
    """
    unknown = set(scopes) - set(SCOPES)
    if unknown:
        raise ValueError(f"unknown scopes {sorted(unknown)}; known are {SCOPES}")

    async def caller(
        request: Request,
        _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # for the OpenAPI document
    ) -> Caller:
        found: Caller | None = request.scope.get(CALLER)  # of a request that came through `http_front.Front`
        if found is None:
            found = await identify(request.headers, request.app.state.verifier)
        found.hold(*scopes)
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
        """A signed token; raises ValueError for a subject, scopes or domains that no verifier would take."""
        wanted, reached = tuple(scopes), checked_domains(domains)
        unknown = set(wanted) - set(SCOPES)
        if unknown:
            raise ValueError(f"unknown scopes {sorted(unknown)}; known are {', '.join(SCOPES)}")
        if (of_fleet := FLEET_SCOPES & set(wanted)) and EVERY_DOMAIN not in reached:
            raise ValueError(f"scope {min(of_fleet)!r} concerns every domain; mint it for the domains '*'")
        now = int(time.time())
        claims = {
            "iss": "lorafleet",
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + int(ttl.total_seconds()),
            "scope": " ".join(wanted),
            "domains": sorted(reached),
        }
        read_claims(claims)
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
