"""Who calls: what a token's claims may be, and what a caller may do where."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fleet_events.text import refuse_unstorable
from fleet_events.v1 import DOMAIN_NAME
from fleet_kit.errors import Problem

__all__ = ["EVERY_DOMAIN", "MAX_DOMAINS", "SCOPES", "Caller", "is_domain", "read_claims"]

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
MAX_DOMAINS = 1000
MAX_SUBJECT = 255
MAX_SCOPE = 4096
_DOMAIN = re.compile(DOMAIN_NAME)


def is_domain(name: str) -> bool:
    """Whether this is a domain's exact name. There are no patterns: `shop*` is none."""
    return _DOMAIN.fullmatch(name) is not None


@dataclass(frozen=True)
class Caller:
    """Who calls, what they may do and in which domains ("*" is every domain)."""

    subject: str
    scopes: frozenset[str]
    domains: frozenset[str]

    def can(self, scope: str) -> bool:
        """Whether the token carries the scope; one of the whole fleet counts only with every domain."""
        return scope in self.scopes and (scope not in FLEET_SCOPES or EVERY_DOMAIN in self.domains)

    def hold(self, *scopes: str) -> None:
        """Raise a 403 `Problem` unless the token carries every one of these scopes."""
        for scope in scopes:
            if scope not in self.scopes:
                raise Problem(403, "Scope missing", f"this token lacks the scope {scope!r}", scope=scope)
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
        return replace(self, domains=domains if EVERY_DOMAIN in self.domains else self.domains & domains)


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
