"""An identity provider's sign-in page: OpenID Connect's authorization code flow with PKCE.

Sources: OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE, S256); RFC 9207 (`iss` in the answer); RFC 9700,
section 2.1.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from typing import Self
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ValidationError

from fleet_kit.errors import Problem
from fleet_kit.key_set import DISCOVERY
from services.console.settings import ACCESS, ConsoleSettings

__all__ = ["CALLBACK", "Attempt", "Provider"]

CALLBACK = "/console/sign-in/answer"
"""Where the provider sends browsers back to: register `<LORAFLEET_CONSOLE_URL>/console/sign-in/answer` with it."""


class Discovered(BaseModel):
    """The parts of a discovery document that are needed."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str


class Tokens(BaseModel):
    """What the provider gives for a code."""

    access_token: str = ""
    id_token: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in under way, kept in the browser that began it and nowhere else."""

    state: str
    verifier: str
    next: str

    @classmethod
    def begin(cls, next: str) -> Self:
        """A new one; `next` is where it leads."""
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(48), next)

    @classmethod
    def of_cookie(cls, value: str) -> Self | None:
        """The one that a cookie holds; None where it holds none."""
        try:
            fields = json.loads(base64.urlsafe_b64decode(value))
            return cls(str(fields["state"]), str(fields["verifier"]), str(fields["next"]))
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def cookie(self) -> str:
        """As a cookie holds it."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @property
    def challenge(self) -> str:
        """Of the verifier, by S256."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()

    def answered_by(self, state: str) -> bool:
        """Whether an answer belongs to this attempt."""
        return hmac.compare_digest(self.state.encode(), state.encode())


class Provider:
    """The provider of the settings. Raises `Problem` where it is unavailable or refuses."""

    def __init__(self, settings: ConsoleSettings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http

    async def address(self, attempt: Attempt) -> str:
        """Where the browser signs in."""
        found = await self._discover()
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._redirect,
            "scope": self._settings.oidc_scope,
            "state": attempt.state,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        if self._settings.oidc_resource:
            query["resource"] = self._settings.oidc_resource
        mark = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{mark}{urlencode(query)}"

    async def token(self, code: str, attempt: Attempt, issuer: str) -> str:
        """The token for a code; `issuer` is the answer's `iss`, empty where the provider names none."""
        found = await self._discover()
        if issuer and issuer != found.issuer:
            raise Problem(401, "Not authenticated", f"the answer is from {issuer[:200]!r}, not from {found.issuer!r}")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "client_id": self._settings.oidc_client_id,
            "code_verifier": attempt.verifier,
        }
        if self._settings.oidc_resource:
            form["resource"] = self._settings.oidc_resource
        secret = self._settings.oidc_client_secret
        auth = httpx.BasicAuth(self._settings.oidc_client_id, secret.get_secret_value()) if secret else None
        try:
            answer = await self._http.post(found.token_endpoint, data=form, auth=auth or httpx.USE_CLIENT_DEFAULT)
            if answer.is_error:
                raise Problem(401, "Not authenticated", f"the provider refuses: {answer.text[:300]}")
            tokens = Tokens.model_validate_json(answer.content)
        except (httpx.TransportError, ValidationError) as error:
            raise _unavailable(self._settings.oidc_issuer, error) from error
        token = tokens.access_token if self._settings.oidc_token == ACCESS else tokens.id_token
        if not token:
            raise Problem(401, "Not authenticated", f"the provider gave no {self._settings.oidc_token}")
        return token

    async def _discover(self) -> Discovered:
        issuer = self._settings.oidc_issuer
        try:
            answer = await self._http.get(f"{issuer.rstrip('/')}{DISCOVERY}")
            found = Discovered.model_validate_json(answer.raise_for_status().content)
        except (httpx.HTTPError, ValidationError) as error:
            raise _unavailable(issuer, error) from error
        if found.issuer != issuer:
            raise Problem(
                503, "Unavailable", f"{issuer} names itself {found.issuer!r}; set LORAFLEET_OIDC_ISSUER to that"
            )
        return found

    @property
    def _redirect(self) -> str:
        return f"{self._settings.console_url.rstrip('/')}{CALLBACK}"


def _unavailable(issuer: str, error: Exception) -> Problem:
    return Problem(503, "Unavailable", f"{issuer} does not answer as an OpenID provider: {type(error).__name__}")
