"""What one domain may take of the trainer: quotas, checked before a thing is accepted, under a lock of its domain.

The database counts, so that quotas hold over all trainers.
"""

from typing import Literal

from fleet_kit.db import Connection
from fleet_kit.errors import Problem

Counted = Literal["uploads", "builds", "jobs"]


async def lock(connection: Connection, counted: Counted, domain: str) -> None:
    """Hold the domain's quota until the transaction ends."""
    # Two requests at once would both count what is there before either has added to it.
    await connection.execute("select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 105))", counted, domain)


def full(domain: str, quota: str, limit: int, what: str) -> Problem:
    """The 409 of a domain that stores as much as it may."""
    return _reached(409, domain, quota, limit, f"{what}; delete some that are no longer needed")


def busy(domain: str, quota: str, limit: int, what: str) -> Problem:
    """The 429 of a domain that has as much under way as it may."""
    return _reached(429, domain, quota, limit, f"{what}; wait until some have ended, or cancel them")


def spent(domain: str, quota: str, limit: float, what: str) -> Problem:
    """The 429 of a domain that has taken in a month what it may."""
    return _reached(429, domain, quota, limit, f"{what}; wait for the next month, or have an operator raise it")


def _reached(status: int, domain: str, quota: str, limit: float, detail: str) -> Problem:
    setting = f"LORAFLEET_{quota}"
    text = f"domain {domain!r} may have {limit} {detail} ({setting})"
    return Problem(status, "Quota reached", text, field="domain", quota=setting, limit=limit)
