"""Who calls: what a token's claims may be, and what a caller may do where."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Self

from fleet_events.text import refuse_unstorable
from fleet_events.v1 import DOMAIN_NAME
from fleet_kit.api_keys import SUBJECT
from fleet_kit.errors import Problem

__all__ = ["EVERY_DOMAIN", "LONGEST_LIFE", "MAX_DOMAINS", "SCOPES", "Caller", "Grant", "is_domain", "read_claims"]

FLEET_SCOPES = frozenset({"fleet:admin"})
"""Scopes of what concerns all domains at once: they count only in a token that reaches every domain."""
SCOPES = (
    "adapters:read",
    "adapters:write",
    "adapters:approve",
    "train",
    "generate",
    "candidates",  # generate with versions that are still being judged: the evaluator alone
    "feedback",
    "metrics",  # read /metrics: Prometheus
    "admin",  # administer the token's own domains
    "fleet:admin",  # administer the fleet as a whole: drain, rebuild, caches, settings
)
EVERY_DOMAIN = "*"
LONGEST_LIFE = timedelta(days=366)
"""Of a token, from `iat` to `exp`, and of an API key: so long is it remembered that one was revoked."""
MAX_DOMAINS = 1000
MAX_SUBJECT = 255
MAX_SCOPE = 4096
_DOMAIN = re.compile(DOMAIN_NAME)


def is_domain(name: str) -> bool:
    """Whether this is a domain's exact name. There are no patterns: `shop*` is none."""
    return _DOMAIN.fullmatch(name) is not None


@dataclass(frozen=True)
class Grant:
    """Scopes together with the domains in which they may be used."""

    scopes: frozenset[str]
    domains: frozenset[str]


@dataclass(frozen=True)
class Caller:
    """Who calls, what they may do and in which domains ("*" is every domain).

    Where scopes differ by domain, `grants` has them, and `scopes` and `domains` are all that occur there: an endpoint
    gets the caller `restricted_to` the scopes that it requires. `lacking` says why a caller may do nothing.
    `token_id` is the jti of the token, empty for an API key and for a token without one.
    """

    subject: str
    scopes: frozenset[str]
    domains: frozenset[str]
    grants: tuple[Grant, ...] = ()
    lacking: str = field(default="", compare=False)
    token_id: str = field(default="", compare=False)

    @classmethod
    def of_grants(cls, subject: str, grants: tuple[Grant, ...], lacking: str = "") -> Self:
        """A caller whose rights are the union of these."""
        scopes: frozenset[str] = frozenset().union(*(one.scopes for one in grants))
        return cls(subject, scopes, _union(grants), grants, lacking)

    def restricted_to(self, *scopes: str) -> "Caller":
        """The same caller in those domains alone in which every one of these scopes may be used."""
        narrowed = self
        for scope in scopes if self.grants else ():
            narrowed = narrowed.narrowed(self._domains_of(scope))
        return narrowed

    def can(self, scope: str) -> bool:
        """Whether the scope may be used in all domains of this caller; one of the whole fleet needs every domain."""
        if scope not in self.scopes or (scope in FLEET_SCOPES and EVERY_DOMAIN not in self.domains):
            return False
        held = self._domains_of(scope)
        return EVERY_DOMAIN in held or self.domains <= held

    def hold(self, *scopes: str) -> None:
        """Raise a 403 `Problem` unless the token carries every one of these scopes."""
        for scope in scopes:
            if scope not in self.scopes:
                why = f": {self.lacking}" if self.lacking else ""
                raise Problem(403, "Scope missing", f"this token lacks the scope {scope!r}{why}", scope=scope)
            if not self.can(scope):
                detail = f"the scope {scope!r} counts only in a token of every domain ('*')"
                raise Problem(403, "Scope missing", detail, scope=scope)

    def reaches(self, domain: str) -> bool:
        """Whether the token's domains include this one."""
        return EVERY_DOMAIN in self.domains or domain in self.domains

    def reach(self, domain: str) -> None:
        """Raise a 403 `Problem` unless the token's domains include this one.

        For a domain that the request names itself, as in a creation or a filter: the answer depends on the token
        alone. What is found by an id and lies in another domain is answered as what does not exist (404).
        """
        if not self.reaches(domain):
            raise Problem(403, "Domain not allowed", f"token is not authorised for domain {domain!r}", field="domain")

    @property
    def domain_filter(self) -> list[str] | None:
        """The domains that a query is restricted to; None is all of them."""
        return None if EVERY_DOMAIN in self.domains else sorted(self.domains)

    def narrowed(self, domains: frozenset[str]) -> "Caller":
        """The same caller with at most these domains. No result reaches a domain that this caller does not."""
        if EVERY_DOMAIN in domains:
            return self
        grants = tuple(replace(one, domains=_within(one.domains, domains)) for one in self.grants)
        return replace(self, domains=_within(self.domains, domains), grants=grants)

    def _domains_of(self, scope: str) -> frozenset[str]:
        if not self.grants:
            return self.domains if scope in self.scopes else frozenset()
        return _union(one for one in self.grants if scope in one.scopes)


def _union(grants: Iterable[Grant]) -> frozenset[str]:
    return frozenset().union(*(one.domains for one in grants))


def _within(domains: frozenset[str], limit: frozenset[str]) -> frozenset[str]:
    return limit if EVERY_DOMAIN in domains else domains & limit


def read_claims(claims: Mapping[str, object]) -> Caller:
    """The caller that a verified token's claims describe.

    `sub` is a text of 1 to 255 characters, `scope` (RFC 8693, section 4.2) one text of names with spaces between, and
    `domains` a list of exact domain names or "*", at most `MAX_DOMAINS`. A token without `scope` may do nothing, one
    without `domains` reaches none.

    Raises:
        ValueError: a claim has another type or form. The whole token is refused: a claim that is misread may widen
            what the token allows.
    """
    return Caller(
        subject=_subject(claims.get("sub")),
        scopes=frozenset(_text("scope", claims.get("scope", ""), MAX_SCOPE).split()),
        domains=_domains(claims.get("domains", [])),
    )


def _subject(value: object) -> str:
    subject = _text("sub", value, MAX_SUBJECT)
    if not subject.strip() or not subject.isprintable():
        raise ValueError("claim 'sub' must be printable text of at least one character")
    if subject.startswith(SUBJECT):
        raise ValueError(f"claim 'sub' begins with {SUBJECT!r}, which is for API keys alone")
    return subject


def _text(name: str, value: object, most: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"claim {name!r} must be a string, not {type(value).__name__}")
    if len(value) > most:
        raise ValueError(f"claim {name!r} has {len(value)} characters, at most {most} are allowed")
    try:
        return refuse_unstorable(value)
    except ValueError as error:
        raise ValueError(f"claim {name!r}: {error}") from None


def _domains(value: object) -> frozenset[str]:
    # A string is iterable too, and "shop*" holds a "*": the type comes first.
    if not isinstance(value, list):
        raise ValueError(f"claim 'domains' must be a list of domain names, not {type(value).__name__}")
    return checked_domains(value)


def checked_domains(names: Iterable[object]) -> frozenset[str]:
    """The names as a set; raises ValueError unless each is an exact domain name or "*"."""
    found: set[str] = set()
    for number, name in enumerate(names):
        if number >= MAX_DOMAINS:
            raise ValueError(f"more than {MAX_DOMAINS} domains")
        if not isinstance(name, str) or not (name == EVERY_DOMAIN or is_domain(name)):
            shown = repr(name)[:80] if isinstance(name, str) else type(name).__name__
            raise ValueError(f"domain {number} is {shown}, expected an exact name (a-z, 0-9, hyphens) or '*'")
        found.add(name)
    return frozenset(found)
