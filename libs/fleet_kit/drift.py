"""Where a stream or a durable on the server differs from what the topology wants, field by field, and what to do."""

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import APIError

__all__ = ["Drift", "compare", "mend", "missing"]

C = TypeVar("C", StreamConfig, ConsumerConfig)

OPERATORS = frozenset({"description", "metadata", "placement", "compression", "republish", "template_owner"})
"""What an operator may set as they like: it changes nothing of what is stored and delivered."""
SERVERS_OWN: dict[str, object] = {"max_waiting": 512}
"""What the server fills in by default."""
SETS_IT = "`lorafleet provision` sets it"


@dataclass(frozen=True)
class Drift:
    """One difference."""

    name: str
    """Of the stream or durable."""
    setting: str
    found: object
    wanted: object
    remedy: str = SETS_IT
    """What to do about it."""
    mended: bool = False

    def __str__(self) -> str:
        line = f"{self.name}: {self.setting} is {_plain(self.found)!r}, the topology has {_plain(self.wanted)!r}"
        return line if self.mended else f"{line}; {self.remedy}"


def missing(name: str, what: str) -> Drift:
    """A stream or a consumer that is not there at all."""
    return Drift(name, what, None, "present", "`lorafleet provision` makes it")


def compare(name: str, found: C, wanted: C) -> list[Drift]:
    """Every field in which the server differs, but for those that are an operator's to set."""
    pairs = ((one.name, getattr(found, one.name), getattr(wanted, one.name)) for one in dataclasses.fields(wanted))
    ignored = OPERATORS | _where_it_began(found)
    return [
        Drift(name, setting, here, there)
        for setting, here, there in pairs
        if setting not in ignored and _value(setting, here) != _value(setting, there)
    ]


async def mend(
    drift: list[Drift], found: C, apply: Callable[[C], Awaitable[object]], again: Callable[[], Awaitable[C]], how: str
) -> list[Drift]:
    """Bring the server back to the topology in every field that it lets be changed.

    Args:
        drift: what differs.
        found: the configuration on the server.
        apply: changes the configuration; raises APIError where the server refuses.
        again: the configuration on the server now.
        how: what to do about what the server refuses.

    Returns:
        The same differences, each mended or with what to do.
    """
    refusals: dict[str, str] = {}
    try:
        await apply(found.evolve(**{one.setting: one.wanted for one in drift}))
    except APIError:
        # Which of them the server refuses it reports only one by one.
        for one in drift:
            try:
                await apply((await again()).evolve(**{one.setting: one.wanted}))
            except APIError as error:
                refusals[one.setting] = error.description or str(error)
    now = await again()
    return [_mended(one, now, refusals.get(one.setting, "it changed nothing"), how) for one in drift]


def _mended(one: Drift, now: object, reason: str, how: str) -> Drift:
    if _value(one.setting, getattr(now, one.setting)) == _value(one.setting, one.wanted):
        return dataclasses.replace(one, mended=True)
    return dataclasses.replace(one, remedy=f"the server refuses the change ({reason}): {how}")


def _where_it_began(found: object) -> frozenset[str]:
    """A durable that was moved into another stream began there in the middle; any other reads it from its start."""
    if isinstance(found, ConsumerConfig) and found.deliver_policy == DeliverPolicy.BY_START_SEQUENCE:
        return frozenset({"deliver_policy", "opt_start_seq"})
    return frozenset()


def _value(setting: str, value: object) -> object:
    """The value, with every way of writing that nothing is set as one."""
    if dataclasses.is_dataclass(value):
        parts = [_value("", getattr(value, one.name)) for one in dataclasses.fields(value)]
        return parts if any(part is not None for part in parts) else None
    if setting == "subjects" and isinstance(value, list):
        return sorted(value)
    if setting in SERVERS_OWN and value == SERVERS_OWN[setting]:
        return None
    if isinstance(value, bool):
        return value or None
    if isinstance(value, (int, float)):
        return value if value not in (0, -1) else None
    return value or None


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value
