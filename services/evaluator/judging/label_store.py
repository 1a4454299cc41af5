"""SQL of human labels: one statement a function, connection first."""

from __future__ import annotations

from fleet_kit.db import Connection
from services.evaluator.judging.agreement import Labelled
from services.evaluator.judging.text import words


async def put_label(
    connection: Connection, evaluation_id: str, sample_id: str, *, by: str, score: float, note: str
) -> bool:
    """Store what a person thinks of an answer, in place of what they thought before. False for an unknown answer."""
    stored = await connection.fetchval(
        "insert into human_label (evaluation_id, sample_id, labelled_by, score, note)"
        " select evaluation_id, sample_id, $3, $4, $5 from sample_result where evaluation_id = $1 and sample_id = $2"
        " on conflict (evaluation_id, sample_id, labelled_by)"
        " do update set score = $4, note = $5, labelled_at = now() returning true",
        evaluation_id,
        sample_id,
        by,
        score,
        note,
    )
    return bool(stored)


async def labelled(connection: Connection, judge: str, domain: str) -> list[Labelled]:
    """Every answer of the domain that this very judge decided and people labelled, with the mean of their scores."""
    rows = await connection.fetch(
        "select r.overall, r.answer, h.human from (select evaluation_id, sample_id, avg(score) as human,"
        " max(labelled_at) as labelled_at"
        " from human_label group by evaluation_id, sample_id) h"
        " join sample_result r using (evaluation_id, sample_id) join evaluation e using (evaluation_id)"
        " where e.judge = $1 and e.domain = $2 and r.standing = 'decided' order by h.labelled_at",
        judge,
        domain,
    )
    return [Labelled(row["overall"], row["human"], len(words(row["answer"]))) for row in rows]
