"""What was taken, here and at the other replicas, and whether more may be."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_REQUESTS: Final = "requests"
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


@dataclass(frozen=True, slots=True)
class _Bound:
    """One amount of one quota, and what is left of it until its period ends."""

    named: str
    amount: str
    within: str
    limit: int
    left: int
    ends: float
    """Seconds until then."""

    @property
    def kind(self) -> str:
        return "requests" if self.amount == _REQUESTS else "tokens"

    @property
    def headers(self) -> dict[str, str]:
        """As OpenAI names them."""
        return {
            f"x-ratelimit-limit-{self.kind}": str(self.limit),
            f"x-ratelimit-remaining-{self.kind}": str(self.left),
            f"x-ratelimit-reset-{self.kind}": f"{self.ends:.0f}s",
        }


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
        for bound in self._bounds_of(caller, domain):
            if not bound.left:
                raise _refusal(bound)

    def headers(self, caller: str, domain: str, begun: int = 0) -> dict[str, str]:
        """What an answer's headers tell of what is left: of requests, and of tokens, the bound with the least.

        begun: answers that are under way, as requests count when their answers end.
        """
        least: dict[str, _Bound] = {}
        for bound in self._bounds_of(caller, domain, begun):
            if bound.kind not in least or bound.left < least[bound.kind].left:
                least[bound.kind] = bound
        return {name: value for bound in least.values() for name, value in bound.headers.items()}

    def _bounds_of(self, caller: str, domain: str, begun: int = 0) -> Iterator[_Bound]:
        if not self._quotas:
            return
        self._turn()
        now = self._now()
        for account, named, quota in self._quotas.of(caller, domain):
            for within, period, amounts, ends in (
                ("minute", self._minute, quota.minute, 60 - now % 60),
                ("month", self._month, quota.month, _month_ends(now) - now),
            ):
                for name, limit, taken in zip(_NAMES, _limits(amounts), period.of(account), strict=True):
                    if limit is not None:
                        used = taken + (begun if name == _REQUESTS else 0)
                        yield _Bound(named, name, within, limit, max(0, limit - used), ends)

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


def _refusal(bound: _Bound) -> RateLimited:
    what = bound.amount.replace("_", " ")
    return RateLimited(
        f"{bound.named} may take {bound.limit} {what} a {bound.within}, and has. "
        f"More can be had in {bound.ends:.0f} seconds.",
        code=OF_MINUTE if bound.within == "minute" else OF_MONTH,
        retry_after=bound.ends,
        headers=bound.headers,
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
