"""Pairs of answers compared by a panel's members, or by one judge. A vote weighs what people's labels gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet_kit.tasks import end
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.ledger import Ledger
from services.evaluator.judging.pair_agreement import PairAccuracy
from services.evaluator.judging.pairwise import Pair, PairVerdict, majority


class PairJudge(Protocol):
    """Compares two answers to a sample in both orders."""

    async def compare(
        self, sample: GoldenSample, question: str, new: str, old: str, ledger: Ledger
    ) -> tuple[Pair | None, str]:
        """The pair's verdicts, or None with the reason."""
        ...


@dataclass(frozen=True)
class PairMember:
    """One judge of pairs, and how often it preferred what people prefer."""

    name: str
    judge: PairJudge
    accuracy: PairAccuracy


@dataclass(frozen=True)
class Compared:
    """A pair's verdicts, or None with the reason; and those of each member that has them, by its name."""

    pair: Pair | None
    why: str
    members: Mapping[str, Pair]


class PairJudges:
    """Requests a comparison from every member; a member without a verdict is left out. One judge is its own panel."""

    def __init__(self, members: Sequence[PairMember]) -> None:
        self._members = members

    async def compare(self, sample: GoldenSample, question: str, new: str, old: str, ledger: Ledger) -> Compared:
        """Raises what a member raises, as a panel does for scores."""
        tasks = [asyncio.create_task(one.judge.compare(sample, question, new, old, ledger)) for one in self._members]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            await end(*tasks)
        by_member = {member.name: one for member, one in zip(self._members, found, strict=True)}
        if len(found) == 1:
            pair, why = found[0]
        else:
            pair, why = combined_pair(by_member, {member.name: member.accuracy for member in self._members})
        return Compared(pair, why, {name: pair for name, (pair, _) in by_member.items() if pair is not None})


def combined_pair(
    found: Mapping[str, tuple[Pair | None, str]], accuracies: Mapping[str, PairAccuracy]
) -> tuple[Pair | None, str]:
    """Each order's verdict is what more than half of the votes prefer, weighted by members' accuracy; else a tie.

    A member that agrees with people no more often than chance counts for nothing, whatever it prefers. One that prefers
    a place has one vote for either answer and moves nothing. None, with the reason, where half or more of the members
    that count have no verdict, or none counts.
    """
    counting = {name: one for name, one in found.items() if accuracies[name].weight > 0}
    if not counting:
        return None, f"none of {len(found)} members agrees with people on pairs more often than chance"
    votes = [(accuracies[name].weight, pair) for name, (pair, _) in counting.items() if pair is not None]
    if len(votes) * 2 <= len(counting):
        name, why = next((name, why) for name, (pair, why) in counting.items() if pair is None)
        return None, f"{len(votes)} of {len(counting)} members have a verdict; {name}: {why}"
    first: list[tuple[float, PairVerdict]] = [(weight, pair.new_first) for weight, pair in votes]
    return Pair(majority(first), majority([(weight, pair.new_second) for weight, pair in votes])), ""
