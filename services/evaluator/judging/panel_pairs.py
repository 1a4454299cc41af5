"""A panel that compares pairs of answers: what most of its comparing members prefer in each order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from fleet_kit.tasks import end
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.ledger import Ledger
from services.evaluator.judging.pairwise import Pair, majority


class PairJudge(Protocol):
    """Compares two answers to a sample in both orders."""

    async def compare(
        self, sample: GoldenSample, question: str, new: str, old: str, ledger: Ledger
    ) -> tuple[Pair | None, str]:
        """The pair's verdicts, or None with the reason."""
        ...


class PanelPairs:
    """Asks every member about every pair; a member without a verdict is left out."""

    def __init__(self, members: Mapping[str, PairJudge]) -> None:
        self._members = members

    async def compare(
        self, sample: GoldenSample, question: str, new: str, old: str, ledger: Ledger
    ) -> tuple[Pair | None, str]:
        """Raises what a member raises, as a panel does for scores."""
        tasks = [
            asyncio.create_task(member.compare(sample, question, new, old, ledger)) for member in self._members.values()
        ]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            await end(*tasks)
        return combined_pair(dict(zip(self._members, found, strict=True)))


def combined_pair(found: Mapping[str, tuple[Pair | None, str]]) -> tuple[Pair | None, str]:
    """Each order's verdict is that of more than half of the members that have one, else a tie.

    Scores are calibrated with people's; a preference has no scale, so each member has one vote. A member that prefers
    a place has one vote for either answer and moves nothing. None, with the reason, where half or more have no verdict.
    """
    pairs = [pair for pair, _ in found.values() if pair is not None]
    if len(pairs) * 2 <= len(found):
        name, why = next((name, why) for name, (pair, why) in found.items() if pair is None)
        return None, f"{len(pairs)} of {len(found)} members have a verdict; {name}: {why}"
    return Pair(majority([pair.new_first for pair in pairs]), majority([pair.new_second for pair in pairs])), ""
