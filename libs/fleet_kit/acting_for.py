"""A service that acts for a caller has the caller's rights: the header that narrows a service's token.

A service that calls another one on behalf of a caller names that caller's domains in `ACT_FOR`. The verifier on
the other side intersects them with the token's own (see `Verifier.caller_of`). The header can remove domains and
never add any, so it is honoured from everybody: there is nothing to gain by sending it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet_kit.caller import EVERY_DOMAIN, MAX_DOMAINS, checked_domains
from fleet_kit.errors import Problem
from fleet_kit.tracing import trace_headers

__all__ = ["ACT_FOR", "Credential", "act_for_value", "acting_for", "read_act_for"]

ACT_FOR = "Lorafleet-Act-For-Domains"
MAX_HEADER = 65 * MAX_DOMAINS
_NOWHERE = "-"
"""No domain at all. An empty value could be lost on the way, and a header that is lost narrows nothing."""


def act_for_value(domains: Iterable[str]) -> str:
    """The header's value for a caller that reaches these domains ("*" is every domain).

    Raises:
        ValueError: one is no domain's name.
    """
    names = checked_domains(domains)
    return EVERY_DOMAIN if EVERY_DOMAIN in names else ",".join(sorted(names)) or _NOWHERE


def acting_for(domains: Iterable[str]) -> dict[str, str]:
    """The header of an outgoing call that is made for a caller that reaches these domains."""
    return {ACT_FOR: act_for_value(domains)}


def read_act_for(value: str) -> frozenset[str]:
    """The domains of the header; raises a 400 `Problem` that names it."""
    try:
        if len(value) > MAX_HEADER:
            raise ValueError(f"has {len(value)} characters, at most {MAX_HEADER} are allowed")
        return frozenset() if value.strip() == _NOWHERE else checked_domains(name.strip() for name in value.split(","))
    except ValueError as error:
        expected = "expected domain names with commas between, '*', or '-' for none"
        raise Problem(400, "Invalid header", f"{ACT_FOR}: {error}; {expected}", field=ACT_FOR) from None


@dataclass(frozen=True)
class Credential:
    """A service's own bearer token. It goes out only together with the domains that it is used for."""

    token: str = field(repr=False)

    def acting_for(self, domains: Iterable[str]) -> dict[str, str]:
        """The headers of a call to another service, made for a caller that reaches these domains, in the current trace.

        Work that an event started acts for the event's own domain.
        """
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return sent | acting_for(domains) | trace_headers()
