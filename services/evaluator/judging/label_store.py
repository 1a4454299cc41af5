"""SQL of human labels: one statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fleet_kit.db import Connection
from services.evaluator.judging.agreement import Labelled
from services.evaluator.judging.text import words


@dataclass(frozen=True)
class LabelledAnswer:
    """A labelled answer by the ids of its evaluation and sample, and when it was labelled last."""

    answer: tuple[str, str]
    at: datetime
    labelled: Labelled


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


async def labelled(connection: Connection, judge: str, domain: str) -> list[LabelledAnswer]:
    """Every answer of the domain that this very judge decided, alone or in a panel, and that people labelled, with the
    mean of their scores; the last labelled last."""
    rows = await connection.fetch(
        "select * from (select evaluation_id, sample_id, r.answer, h.human, h.labelled_at, case"
        " when e.judge = $1 and r.standing = 'decided' then r.overall"
        " when r.evidence #>> array['members', $1, 'standing'] = 'decided'"
        " then (r.evidence #>> array['members', $1, 'overall'])::float8 end as score"
        " from (select evaluation_id, sample_id, avg(score) as human, max(labelled_at) as labelled_at"
        " from human_label group by evaluation_id, sample_id) h"
        " join sample_result r using (evaluation_id, sample_id) join evaluation e using (evaluation_id)"
        " where e.domain = $2) scored where score is not null order by labelled_at",
        judge,
        domain,
    )
    return [
        LabelledAnswer(
            (row["evaluation_id"], row["sample_id"]),
            row["labelled_at"],
            Labelled(row["score"], row["human"], len(words(row["answer"]))),
        )
        for row in rows
    ]
