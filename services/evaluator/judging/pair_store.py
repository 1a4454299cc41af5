"""SQL of compared pairs: one statement a function, connection first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from fleet_kit.db import Connection
from services.evaluator.judging.agreement import MOST
from services.evaluator.judging.pair_agreement import LabelledPair
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


async def add_pair(
    connection: Connection, evaluation_id: str, rival: str, stored: StoredPair, members: Mapping[str, Pair]
) -> None:
    """members: what each judge by itself preferred, by its name; kept without its reasons."""
    bare = {name: {order: one | {"reason": ""} for order, one in _verdicts(p).items()} for name, p in members.items()}
    await connection.execute(
        "insert into pair_result (evaluation_id, sample_id, rival_evaluation_id, verdicts, why, members)"
        " values ($1, $2, $3, $4, $5, $6)",
        evaluation_id,
        stored.sample_id,
        rival,
        _verdicts(stored.pair) if stored.pair else None,
        stored.why,
        bare,
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


async def labelled_pairs(connection: Connection, judge: str, domain: str) -> list[LabelledPair]:
    """The last `MOST` pairs of the domain that this judge compared, alone, as a panel or in one, and of which people
    labelled both answers."""
    rows = await connection.fetch(
        "select * from (select case when e.judge = $1 then p.verdicts else p.members -> $1 end as verdicts,"
        " ours.human as human_new, rivals.human as human_old, greatest(ours.at, rivals.at) as at"
        " from pair_result p join evaluation e using (evaluation_id)"
        " join lateral (select avg(score) as human, max(labelled_at) as at from human_label h"
        " where h.evaluation_id = p.evaluation_id and h.sample_id = p.sample_id) ours on ours.human is not null"
        " join lateral (select avg(score) as human, max(labelled_at) as at from human_label h where"
        " h.evaluation_id = p.rival_evaluation_id and h.sample_id = p.sample_id) rivals on rivals.human is not null"
        " where e.domain = $2) labelled where verdicts is not null order by at desc limit $3",
        judge,
        domain,
        MOST,
    )
    return [LabelledPair(_pair(row["verdicts"]), row["human_new"], row["human_old"]) for row in rows]


def _stored(row: asyncpg.Record) -> StoredPair:
    pair = _pair(row["verdicts"]) if row["verdicts"] is not None else None
    return StoredPair(row["sample_id"], pair, row["why"])


def _pair(verdicts: Mapping[str, Any]) -> Pair:
    return Pair(**{name: PairVerdict(Preferred(one["preferred"]), one["reason"]) for name, one in verdicts.items()})
