"""Which API keys there are and which tokens are revoked: a projection of the registry's events in every process.

No request waits for another service. A process that starts reads the events before it is ready, and verifies nobody
until then; one that cannot reach the bus keeps what it knows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

import structlog
from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_events.topology import followed_by
from fleet_events.v1 import ApiKeyCreated, ApiKeyRevoked, NamedBy, TokenRevoked
from fleet_kit import tasks
from fleet_kit.api_keys import SUBJECT, ApiKey, same_secret
from fleet_kit.caller import LONGEST_LIFE, Caller, checked_domains
from fleet_kit.cloudevents import Envelope
from fleet_kit.errors import Problem
from fleet_kit.key_use import KeyUse
from fleet_kit.projection import follow

__all__ = ["AccessList"]

log = structlog.get_logger()

_SWEEP_SECONDS = 60.0
_NO_SECRET = "0" * 64
_READING = "API keys and revoked tokens are still being read from the bus"


@dataclass(frozen=True, slots=True)
class _Known:
    """A key that was made and has not been revoked."""

    secret_sha256: str
    caller: Caller
    until: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Revoked:
    """Tokens issued at `at` or before, and when the last of them ends by itself (seconds since 1970)."""

    at: float
    until: float


class AccessList:
    """What the registry's events tell of keys and tokens.

    Args:
        service: who follows them.
        skew: seconds by which the clocks of issuers may be ahead of the registry's: a subject's tokens count as issued
            before their revocation for as long after it.
        now: gives seconds since 1970.
    """

    def __init__(self, service: str, *, skew: float = 0.0, now: Callable[[], float] = time.time) -> None:
        self.caught_up = asyncio.Event()
        self.use = KeyUse()
        self._followed = followed_by(service, "access")
        self._skew = skew
        self._now = now
        self._keys: dict[str, _Known] = {}
        self._ended: dict[str, float] = {}
        self._jtis: dict[str, _Revoked] = {}
        self._subjects: dict[str, _Revoked] = {}
        self._swept = now()

    async def ready(self) -> None:
        """Readiness: raises until the events have been read once."""
        if not self.caught_up.is_set():
            raise RuntimeError(_READING)

    def caller_of(self, text: str) -> Caller:
        """The caller that holds this API key.

        Raises:
            Problem: 401 for a key that is unknown, expired, revoked or no key, which is not told apart; the log has
                it. 503 until the events have been read once.
        """
        self._require_read()
        key = ApiKey.read(text)
        known = self._keys.get(key.key_id) if key else None
        # An unknown key takes as long as a known one.
        same = same_secret(key or ApiKey("", ""), known.secret_sha256 if known else _NO_SECRET)
        if key is None or known is None or not same or known.until <= self._now():
            log.info("api_key_refused", key_id=key.key_id if key else "", reason=self._why(key, known, same=same))
            raise Problem(401, "Not authenticated", "API key refused: it is unknown, expired or revoked")
        self.use.note(key.key_id, self._now())
        return known.caller

    def check_token(self, token_id: str, subject: str, issued_at: float) -> None:
        """Let a verified token pass unless it is revoked.

        Args:
            token_id: its jti; empty for none.
            subject: of its caller.
            issued_at: its iat, seconds since 1970.

        Raises:
            Problem: 401 for a revoked token, 503 until the events have been read once.
        """
        self._require_read()
        revoked = self._subjects.get(subject)
        if (token_id and token_id in self._jtis) or (revoked is not None and issued_at <= revoked.at + self._skew):
            log.info("token_refused", subject=subject, reason="revoked")
            raise Problem(401, "Not authenticated", "bearer token refused: it was revoked")

    def is_revoked(self, subject: str, token_id: str, at: float) -> bool:
        """Whether the key or token with which something was begun has been revoked since; expiry is no revocation.

        Args:
            subject: of its caller.
            token_id: jti of the token; empty for none.
            at: when it was begun, seconds since 1970: its token was issued by then.
        """
        if subject.startswith(SUBJECT):
            return subject.removeprefix(SUBJECT) in self._ended
        revoked = self._subjects.get(subject)
        return (bool(token_id) and token_id in self._jtis) or (revoked is not None and at <= revoked.at + self._skew)

    async def apply(self, event: Event, _envelope: Envelope | None = None) -> None:
        """Take an event in; bears seeing it again, and seeing a key's end before its beginning."""
        match event:
            case ApiKeyCreated():
                self._create(event)
            case ApiKeyRevoked():
                known = self._keys.pop(event.key_id, None)
                self._ended[event.key_id] = known.until if known else self._now() + LONGEST_LIFE.total_seconds()
            case TokenRevoked():
                self._revoke(event)
        self._sweep()

    async def follow(self, jetstream: JetStreamContext, publish: Callable[[Event, str], Awaitable[None]]) -> NoReturn:
        """Follow the registry's events, and report which keys were used, until cancelled."""
        reporting = asyncio.create_task(self.use.report(publish))
        try:
            await follow(jetstream, self._followed.subjects, self._followed.events, self.apply, self.caught_up)
        finally:
            await tasks.end(reporting)

    def _require_read(self) -> None:
        if not self.caught_up.is_set():
            raise Problem(503, "Temporarily unavailable", _READING, retry_after=1)

    def _why(self, key: ApiKey | None, known: "_Known | None", *, same: bool) -> str:
        if key is None:
            return "no API key"
        if known is None:
            return "revoked" if key.key_id in self._ended else "unknown, or expired a while ago"
        return "expired" if same else "wrong secret"

    def _create(self, event: ApiKeyCreated) -> None:
        until = event.expires_at.timestamp()
        if event.key_id in self._ended or until <= self._now():
            return
        try:
            domains = checked_domains(event.domains)
        except ValueError as error:  # one wrong event must not end every service
            log.warning("api_key_passed_over", key_id=event.key_id, reason=str(error))
            return
        caller = Caller(f"{SUBJECT}{event.key_id}", frozenset(event.scopes), domains)
        self._keys[event.key_id] = _Known(event.secret_sha256, caller, until)

    def _revoke(self, event: TokenRevoked) -> None:
        named = self._jtis if event.named_by is NamedBy.JTI else self._subjects
        before = named.get(event.value)
        at, until = event.revoked_at.timestamp(), event.until.timestamp()
        if before is not None:
            at, until = max(at, before.at), max(until, before.until)
        named[event.value] = _Revoked(at, until)

    def _sweep(self) -> None:
        """Forget what has ended by itself: the list is as long as what can still be used."""
        now = self._now()
        if now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        self._keys = {name: one for name, one in self._keys.items() if one.until > now}
        self._ended = {name: until for name, until in self._ended.items() if until > now}
        self._jtis = {name: one for name, one in self._jtis.items() if one.until > now}
        self._subjects = {name: one for name, one in self._subjects.items() if one.until > now}
