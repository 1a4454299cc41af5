"""Who calls: signed JSON Web Tokens and API keys, verified without asking another service.

A token, or the registry's record of a key, carries scopes (what may be done) and domains (where: the tenancy boundary).
"""

import json
import os
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from fleet_kit.access_rules import AccessRules, caller_by_rules
from fleet_kit.acting_for import ACT_FOR, read_act_for
from fleet_kit.api_keys import PREFIX
from fleet_kit.caller import EVERY_DOMAIN, FLEET_SCOPES, LONGEST_LIFE, SCOPES, Caller, checked_domains, read_claims
from fleet_kit.errors import Problem
from fleet_kit.key_set import DISCOVERY, KeySet, UnknownKey

if TYPE_CHECKING:
    from fleet_kit.access_list import AccessList  # it brings the bus, which those who mint tokens do not need

__all__ = ["SCOPES", "Caller", "LocalIssuer", "Verifier", "identify", "is_fleet_token", "require"]

AUDIENCE = "lorafleet"
CALLER = "lorafleet.caller"
"""Where an ASGI scope keeps the `Caller` that is known already."""
MAX_TOKEN = 32_768
"""Characters of a token."""


class Verifier:
    """Checks tokens against the key sets of their issuers, and API keys against the registry's events.

    Args:
        jwks: path or URL of the fleet's own key set, see `KeySet`.
        issuer: what the claim `iss` must be there.
        max_age: seconds after which the keys are read again.
        keep: seconds for which keys stay good while an issuer cannot be reached.
        skew: seconds by which an issuer's clock may differ from ours.
        access: API keys and revoked tokens; without one there are none.
        rules: further issuers, and the rights that their claims give.

    Raises:
        ValueError: a URL that is not https, or a provider that has the fleet's own issuer.
    """

    def __init__(
        self,
        jwks: str,
        issuer: str,
        *,
        max_age: float = 300.0,
        keep: float = 43_200.0,
        skew: float = 0.0,
        access: "AccessList | None" = None,
        rules: AccessRules | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        keys = partial(KeySet, max_age=max_age, keep=keep, tls=tls)
        self._keys = keys(jwks, issuer=issuer)
        self._own = _Issuer(issuer, (AUDIENCE,), self._keys, read_claims)
        self._others = {
            one.issuer: _Issuer(
                one.issuer,
                one.audience,
                keys(one.keys or one.issuer.rstrip("/") + DISCOVERY, issuer=one.issuer),
                partial(caller_by_rules, provider=one, rules=given),
            )
            for one, given in (rules.by_provider() if rules else ())
        }
        if issuer in self._others:
            raise ValueError(f"access rules: issuer {issuer!r} is the fleet's own (LORAFLEET_ISSUER)")
        self._skew = skew
        self._access = access

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
        """The caller of a token or an API key.

        Raises:
            Problem: 401; 503 while the issuer's keys, or the list of keys and revoked tokens, were never read.
        """
        if self._access is not None and token.startswith(PREFIX):
            return self._access.caller_of(token)
        try:
            if len(token) > MAX_TOKEN:
                raise ValueError(f"it has {len(token)} characters, at most {MAX_TOKEN} are allowed")
            header = jwt.get_unverified_header(token)
            issuer, kid = self._issuer_of(token), header.get("kid")
            if not isinstance(kid, str):
                raise ValueError("its header must name a key ('kid')")
            key = await issuer.keys.key(kid)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=issuer.name,
                audience=issuer.audience,
                leeway=self._skew,
                options={"require": ["exp", "iat", "sub", "iss", "aud"]},
            )
            caller, issued_at = issuer.read(claims), _issued(claims)
        # Claims of odd types make PyJWT's own checks fail in their own ways: exp as a list, as 1e400, nested deeply.
        except (jwt.PyJWTError, UnknownKey, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Problem(401, "Not authenticated", f"bearer token refused: {str(error)[:300]}") from None
        # Entra has its own name for a token's id.
        token_id = str(claims.get("jti") or claims.get("uti") or "")
        if self._access is not None:
            self._access.check_token(token_id, caller.subject, issued_at)
        return replace(caller, token_id=token_id)

    def _issuer_of(self, token: str) -> "_Issuer":
        """The issuer whose keys a token must be signed with, by its own word: those verify what it says."""
        if not self._others:
            return self._own
        named = jwt.decode(token, options={"verify_signature": False}).get("iss")
        return self._others.get(named, self._own) if isinstance(named, str) else self._own


@dataclass(frozen=True, slots=True)
class _Issuer:
    name: str
    audience: tuple[str, ...]
    keys: KeySet
    read: Callable[[Mapping[str, Any]], Caller]
    """The caller that verified claims describe."""


def _issued(claims: Mapping[str, Any]) -> float:
    """When a token was issued; raises ValueError for one that lasts longer than its revocation is remembered."""
    issued_at = float(claims["iat"])
    if float(claims["exp"]) - issued_at > LONGEST_LIFE.total_seconds():
        raise ValueError(f"it lasts longer than {LONGEST_LIFE.days} days")
    return issued_at


def is_fleet_token(token: str) -> bool:
    """Whether this is made to be a token or key of the fleet, good or not: it must go to no server outside of it."""
    if token.startswith(PREFIX):
        return True
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


_bearer = HTTPBearer(auto_error=False, description="Signed JSON Web Token, or API key")


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
        found = found.restricted_to(*scopes)
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
        if ttl > LONGEST_LIFE:
            raise ValueError(f"a token may last {LONGEST_LIFE.days} days, not {ttl.days}")
        now = int(time.time())
        claims = {
            "iss": "lorafleet",
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + int(ttl.total_seconds()),
            "jti": secrets.token_hex(8),
            "scope": " ".join(wanted),
            "domains": sorted(reached),
        }
        read_claims(claims)
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
