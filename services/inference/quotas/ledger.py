"""What was taken, here and at the other replicas, and whether more may be."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import add
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from services.inference.errors import RateLimited
from services.inference.quotas.limits import Amounts, Quotas

OF_MINUTE: Final = "rate_limit_exceeded"
OF_MONTH: Final = "insufficient_quota"
"""Codes of the refusals, as OpenAI has them."""
MOST_ACCOUNTS: Final = 10_000
"""Of a replica in a month; of more, the one that took least is forgotten, which can only permit more, never less."""
_NAMES: Final = tuple(Amounts.model_fields)
Taken = tuple[int, int, int]
"""Requests, tokens of prompts, tokens of answers."""
_NOTHING: Final[Taken] = (0, 0, 0)


class Used(BaseModel):
    """What one replica's callers took in the present month and minute, by account: what replicas tell each other."""

    model_config = ConfigDict(frozen=True)

    month: str
    minute: int
    in_month: dict[str, Taken] = Field(default_factory=dict)
    in_minute: dict[str, Taken] = Field(default_factory=dict)


@dataclass(slots=True)
class _Period:
    """A minute or a month, and what was taken in it here and elsewhere."""

    name: str | int
    here: dict[str, Taken] = field(default_factory=dict)
    elsewhere: Mapping[str, Taken] = field(default_factory=dict)

    def of(self, account: str) -> Taken:
        return _sum(self.here.get(account, _NOTHING), self.elsewhere.get(account, _NOTHING))

    def charge(self, account: str, taken: Taken) -> None:
        self.here[account] = _sum(self.here.get(account, _NOTHING), taken)
        if len(self.here) > MOST_ACCOUNTS:
            del self.here[min(self.here, key=lambda one: sum(self.here[one]))]


class Ledger:
    """The accounts of one replica. `now` gives seconds since the epoch."""

    def __init__(self, quotas: Quotas, now: Callable[[], float] = time.time) -> None:
        self._quotas, self._now = quotas, now
        self._minute, self._month = _Period(_minute_of(now())), _Period(_month_of(now()))

    @property
    def bounds(self) -> bool:
        """Whether there is any quota."""
        return bool(self._quotas)

    @property
    def month(self) -> str:
        """The present one, as 2026-12."""
        self._turn()
        return str(self._month.name)

    def admit(self, caller: str, domain: str = "") -> None:
        """Raise `RateLimited` with the seconds until the period's end where an account has taken all that it may."""
        if not self._quotas:
            return
        self._turn()
        now = self._now()
        for account, named, quota in self._quotas.of(caller, domain):
            for period, amounts, ends in (
                (self._minute, quota.minute, 60 - now % 60),
                (self._month, quota.month, _month_ends(now) - now),
            ):
                for name, limit, taken in zip(_NAMES, _limits(amounts), period.of(account), strict=True):
                    if limit is not None and taken >= limit:
                        within = "minute" if period is self._minute else "month"
                        raise _refusal(named, name, within, limit, ends)

    def charge(self, caller: str, domain: str, taken: Taken) -> None:
        """Count an answer."""
        if not self._quotas:
            return
        self._turn()
        for account, _, _ in self._quotas.of(caller, domain):
            self._minute.charge(account, taken)
            self._month.charge(account, taken)

    def used(self) -> Used:
        """What was taken here, for the others."""
        self._turn()
        return Used(
            month=str(self._month.name),
            minute=int(self._minute.name),
            in_month=self._month.here,
            in_minute=self._minute.here,
        )

    def resume(self, before: Used) -> None:
        """Begin with what a former process of this replica took."""
        self._turn()
        for period, name, taken in self._periods(before):
            if name == period.name:
                for account, amount in taken.items():
                    period.charge(account, amount)

    def learn(self, others: Iterable[Used]) -> None:
        """Take over what the other replicas took."""
        self._turn()
        totals: dict[int, dict[str, Taken]] = {id(self._month): {}, id(self._minute): {}}
        for other in others:
            for period, name, taken in self._periods(other):
                if name == period.name:
                    total = totals[id(period)]
                    total |= {one: _sum(total.get(one, _NOTHING), amount) for one, amount in taken.items()}
        for period in (self._month, self._minute):
            period.elsewhere = totals[id(period)]

    def _periods(self, used: Used) -> tuple[tuple[_Period, str | int, Mapping[str, Taken]], ...]:
        return (self._month, used.month, used.in_month), (self._minute, used.minute, used.in_minute)

    def _turn(self) -> None:
        now = self._now()
        if self._minute.name != _minute_of(now):
            self._minute = _Period(_minute_of(now))
            if self._month.name != _month_of(now):
                self._month = _Period(_month_of(now))


def _limits(amounts: Amounts) -> tuple[int | None, ...]:
    return tuple(getattr(amounts, name) for name in _NAMES)


def _refusal(named: str, name: str, within: str, limit: int, ends: float) -> RateLimited:
    what = name.replace("_", " ")
    kind = "requests" if name == "requests" else "tokens"
    return RateLimited(
        f"{named} may take {limit} {what} a {within}, and has. More can be had in {ends:.0f} seconds.",
        code=OF_MINUTE if within == "minute" else OF_MONTH,
        retry_after=ends,
        headers={
            f"x-ratelimit-limit-{kind}": str(limit),
            f"x-ratelimit-remaining-{kind}": "0",
            f"x-ratelimit-reset-{kind}": f"{ends:.0f}s",
        },
    )


def _sum(one: Taken, other: Taken) -> Taken:
    requests, prompt, completion = map(add, one, other)
    return requests, prompt, completion


def _minute_of(now: float) -> int:
    return int(now // 60)


def _month_of(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def _month_ends(now: float) -> float:
    at = datetime.fromtimestamp(now, UTC)
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
