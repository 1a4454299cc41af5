"""SQL of compared pairs: one statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from fleet_kit.db import Connection
from services.evaluator.judging.pairwise import Pair, PairVerdict, Preferred


@dataclass(frozen=True)
class StoredPair:
    """A sample's pair; None where no verdict could be had, with the reason."""

    sample_id: str
    pair: Pair | None
    why: str

    def shown(self) -> dict[str, Any]:
        """As report and HTTP show it."""
        return {
            "outcome": str(self.pair.outcome) if self.pair else None,
            "consistent": self.pair.consistent if self.pair else None,
            "verdicts": _verdicts(self.pair) if self.pair else None,
            "why": self.why,
        }


async def add_pair(connection: Connection, evaluation_id: str, rival: str, stored: StoredPair) -> None:
    await connection.execute(
        "insert into pair_result (evaluation_id, sample_id, rival_evaluation_id, verdicts, why)"
        " values ($1, $2, $3, $4, $5)",
        evaluation_id,
        stored.sample_id,
        rival,
        _verdicts(stored.pair) if stored.pair else None,
        stored.why,
    )


async def pairs(connection: Connection, evaluation_id: str, rival: str) -> list[StoredPair]:
    rows = await connection.fetch(
        "select sample_id, verdicts, why from pair_result where evaluation_id = $1 and rival_evaluation_id = $2"
        " order by sample_id",
        evaluation_id,
        rival,
    )
    return [_stored(row) for row in rows]


def _verdicts(pair: Pair) -> dict[str, Any]:
    orders = {"new_first": pair.new_first, "new_second": pair.new_second}
    return {name: {"preferred": str(v.preferred), "reason": v.reason} for name, v in orders.items()}


def _stored(row: asyncpg.Record) -> StoredPair:
    pair = None
    if row["verdicts"] is not None:
        made = {name: PairVerdict(Preferred(one["preferred"]), one["reason"]) for name, one in row["verdicts"].items()}
        pair = Pair(**made)
    return StoredPair(row["sample_id"], pair, row["why"])
