"""Rollouts and what their answers came to: one SQL statement a function, connection first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from fleet_events import v1
from fleet_events.v1 import RolloutArm, RolloutMetric
from fleet_kit.db import Connection
from services.registry.rollout.state import Rollout
from services.registry.rollout.verdict import Counted

_ROLLOUT = TypeAdapter(Rollout)
BATCH = 5000
"""Rows that one statement deletes at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part that an answer had in a rollout."""

    rollout_id: str
    step: int
    arm: RolloutArm


@dataclass(frozen=True, slots=True)
class Running:
    """A rollout that runs, and the family that it is of."""

    family_id: str
    domain: str
    method: v1.Method
    rollout: Rollout


async def find_running(connection: Connection, family_id: str) -> Rollout | None:
    """The rollout of a family that runs, if any."""
    body = await connection.fetchval("select body from rollout where family_id = $1 and state = 'running'", family_id)
    return _ROLLOUT.validate_python(body) if body else None


async def find_rollout(connection: Connection, rollout_id: str) -> Rollout | None:
    body = await connection.fetchval("select body from rollout where rollout_id = $1", rollout_id)
    return _ROLLOUT.validate_python(body) if body else None


async def all_running(connection: Connection) -> tuple[Running, ...]:
    """Every rollout that runs."""
    rows = await connection.fetch(
        """
        select family_id, family.domain, family.method, body
        from rollout join family using (family_id) where state = 'running' order by started_at
        """
    )
    return tuple(
        Running(row["family_id"], row["domain"], v1.Method(row["method"]), _ROLLOUT.validate_python(row["body"]))
        for row in rows
    )


async def rollouts_of(connection: Connection, family_id: str, limit: int) -> tuple[Rollout, ...]:
    """The rollouts of a family, newest first."""
    rows = await connection.fetch(
        "select body from rollout where family_id = $1 order by started_at desc limit $2", family_id, limit
    )
    return tuple(_ROLLOUT.validate_python(row["body"]) for row in rows)


async def save_rollout(connection: Connection, family_id: str, domain: str, rollout: Rollout) -> None:
    await connection.execute(
        """
        insert into rollout (rollout_id, family_id, domain, state, started_at, body) values ($1, $2, $3, $4, $5, $6)
        on conflict (rollout_id) do update set state = excluded.state, body = excluded.body
        """,
        rollout.rollout_id,
        family_id,
        domain,
        rollout.state.value,
        rollout.started_at,
        _ROLLOUT.dump_python(rollout, mode="json"),
    )


async def find_family(connection: Connection, family_id: str) -> tuple[str, v1.Method] | None:
    """Domain and method of a family, if there is one of this name."""
    row = await connection.fetchrow("select domain, method from family where family_id = $1", family_id)
    return (row["domain"], v1.Method(row["method"])) if row else None


async def lock_answer(connection: Connection, generation_id: str) -> None:
    """Let an answer and its ratings be counted one after the other, whichever comes first."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('rollout_answer'), hashtext($1))", generation_id)


async def add_part(connection: Connection, generation_id: str, part: Part, at: datetime) -> bool:
    """Keep the part that an answer had; False if it is kept already."""
    added = await connection.fetchval(
        """
        insert into rollout_answer (generation_id, rollout_id, step, arm, answered_at) values ($1, $2, $3, $4, $5)
        on conflict do nothing returning true
        """,
        generation_id,
        part.rollout_id,
        part.step,
        part.arm.value,
        at,
    )
    return bool(added)


async def find_part(connection: Connection, generation_id: str) -> Part | None:
    row = await connection.fetchrow(
        "select rollout_id, step, arm from rollout_answer where generation_id = $1", generation_id
    )
    return Part(row["rollout_id"], row["step"], RolloutArm(row["arm"])) if row else None


async def add_score(connection: Connection, generation_id: str, part: Part, score: float, judge: str) -> bool:
    """Keep the judge's score of an answer; False if it has one already."""
    added = await connection.fetchval(
        """
        insert into rollout_score (generation_id, rollout_id, step, arm, score, judge) values ($1, $2, $3, $4, $5, $6)
        on conflict do nothing returning true
        """,
        generation_id,
        part.rollout_id,
        part.step,
        part.arm.value,
        score,
        judge,
    )
    return bool(added)


async def count(connection: Connection, part: Part, outcomes: Mapping[RolloutMetric, float]) -> None:
    """Add one outcome for each metric."""
    names = sorted(outcomes)  # always in one order, so that two transactions wait and never block each other
    await connection.execute(
        """
        insert into rollout_outcome
        select $1, $2, metric, $3, outcome, 1 from unnest($4::text[], $5::double precision[]) as given (metric, outcome)
        on conflict (rollout_id, step, metric, arm, outcome) do update set times = rollout_outcome.times + 1
        """,
        part.rollout_id,
        part.step,
        part.arm.value,
        [name.value for name in names],
        [outcomes[name] for name in names],
    )


async def counted(connection: Connection, rollout_id: str, step: int) -> Counted:
    """How often each outcome occurred at a step."""
    rows = await connection.fetch(
        "select metric, arm, outcome, times from rollout_outcome where rollout_id = $1 and step = $2", rollout_id, step
    )
    found: dict[tuple[RolloutMetric, RolloutArm], dict[float, int]] = defaultdict(dict)
    for row in rows:
        found[RolloutMetric(row["metric"]), RolloutArm(row["arm"])][row["outcome"]] = row["times"]
    return found


async def ratings_of(connection: Connection, generation_id: str) -> list[int]:
    """Ratings that came before their answer, the newest of each person."""
    rows = await connection.fetch("select rating from feedback where generation_id = $1", generation_id)
    return [row["rating"] for row in rows]


async def rated(connection: Connection, generation_id: str, by: str) -> bool:
    """Whether this person has rated this answer already."""
    return bool(
        await connection.fetchval(
            "select exists (select from feedback where generation_id = $1 and rated_by = $2)", generation_id, by
        )
    )


async def compared(connection: Connection, one: str, other: str, by: str) -> bool:
    """Whether this person has chosen between these two answers already."""
    return bool(
        await connection.fetchval(
            """
            select exists (
                select from preference where first_answer = $1 and second_answer = $2 and preferred_by = $3
            )
            """,
            *sorted((one, other)),
            by,
        )
    )


async def forget_parts(connection: Connection, age: timedelta) -> bool:
    """Delete a batch of the parts of answers that are older; returns whether there may be more."""
    status = await connection.execute(
        """
        delete from rollout_answer where generation_id in (
            select generation_id from rollout_answer where answered_at < now() - $1::interval
            order by answered_at limit $2
        )
        """,
        age,
        BATCH,
    )
    return int(status.rsplit(maxsplit=1)[-1]) >= BATCH


async def forget_scores(connection: Connection, age: timedelta) -> bool:
    """Delete a batch of the scores of answers that are older; returns whether there may be more."""
    status = await connection.execute(
        """
        delete from rollout_score where generation_id in (
            select generation_id from rollout_score where judged_at < now() - $1::interval
            order by judged_at limit $2
        )
        """,
        age,
        BATCH,
    )
    return int(status.rsplit(maxsplit=1)[-1]) >= BATCH
