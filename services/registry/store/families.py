"""What readers ask of families: one SQL statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fleet_kit.db import Connection
from services.registry.store.listing import Domains

Sort = Literal["family", "score", "answers", "rating", "newest"]
_ORDER: Final[dict[Sort, str]] = {
    "family": "family",
    "score": "score desc nulls last, family",
    "answers": "answers desc, family",
    "rating": "average_rating desc nulls last, family",
    "newest": "newest_at desc, family",
}


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """A family with its active version (null without one), whose score and interval are 0 to 100."""

    family: str
    domain: str
    method: str
    versions: int
    pending_review: int
    active_id: str | None
    active_version: str | None
    score: float | None
    ci_low: float | None
    ci_high: float | None
    answers: int
    ratings: int
    average_rating: float | None
    replicas: int
    newest_id: str
    newest_at: datetime


@dataclass(frozen=True, slots=True)
class Search:
    """Which families, and which part of their list. `text` is looked for in names and descriptions, case aside."""

    domain: str | None = None
    text: str = ""
    waiting: bool = False
    """Only those with a version that waits for review."""
    serving: bool | None = None
    """Only those with an active version, or only those without."""
    base_model: str | None = None
    """Only those with a version for the base model of this name or revision."""
    score_below: float | None = None
    """Only those whose active version has a score below this one, 0 to 100."""
    sort: Sort = "family"
    offset: int = 0
    limit: int = 50


async def families(connection: Connection, search: Search, domains: Domains) -> tuple[list[FamilyRow], int]:
    """The families of a search, and how many there are in all."""
    rows = await connection.fetch(
        f"""
        with found as (
            select family_id as family, domain, method, count(*) as versions,
                count(*) filter (where status = 'pending_review') as pending_review,
                max(adapter_id) filter (where active) as active_id,
                (array_agg(adapter_id order by position desc))[1] as newest_id,
                max(registered_at) as newest_at
            from adapter
            where ($1::text is null or domain = $1) and ($2::text[] is null or domain = any($2))
            group by family_id, domain, method
            having ($3 = '' or family_id ilike $3 or bool_or(adapter_id ilike $3 or made_of->>'description' ilike $3))
                and (not $4 or count(*) filter (where status = 'pending_review') > 0)
                and ($9::text is null or bool_or($9 in (base_model, base_model_revision)))
        ), answered as (
            select adapter_id, sum(answers)::bigint as answers from usage group by adapter_id
        ), rated as (
            select adapter_id, count(*) as ratings, avg(rating)::double precision as average_rating
            from feedback group by adapter_id
        ), held as (
            select adapter_id, count(*) as replicas from replica where unloaded_at is null group by adapter_id
        )
        select found.*, serving.major || '.' || serving.minor || '.' || serving.patch as active_version,
            (serving.evaluation->'judgement'->>'score')::double precision as score,
            (serving.evaluation->'judgement'->>'ci_low')::double precision as ci_low,
            (serving.evaluation->'judgement'->>'ci_high')::double precision as ci_high,
            coalesce(answers, 0) as answers, coalesce(ratings, 0) as ratings, average_rating,
            coalesce(replicas, 0) as replicas, count(*) over () as total
        from found
        left join adapter as serving on serving.adapter_id = found.active_id
        left join answered on answered.adapter_id = found.active_id
        left join rated on rated.adapter_id = found.active_id
        left join held on held.adapter_id = found.active_id
        where ($7::boolean is null or (found.active_id is not null) = $7)
            and ($8::double precision is null
                or (serving.evaluation->'judgement'->>'score')::double precision < $8)
        order by {_ORDER[search.sort]} offset $5 limit $6
        """,  # noqa: S608 - one of the texts above
        search.domain,
        domains,
        f"%{_literal(search.text)}%" if search.text else "",
        search.waiting,
        search.offset,
        search.limit,
        search.serving,
        search.score_below,
        search.base_model,
    )
    total = rows[0]["total"] if rows else 0
    return [FamilyRow(**{name: row[name] for name in FamilyRow.__slots__}) for row in rows], total


def _literal(text: str) -> str:
    """A text as a pattern that matches itself alone."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
