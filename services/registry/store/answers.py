"""Who gave which answer: one SQL statement a function, connection first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from fleet_events import v1
from fleet_kit.db import Connection

BATCH = 5000
"""Rows that one statement deletes at most."""


@dataclass(frozen=True, slots=True)
class AnsweredWith:
    """An adapter that an answer was given with. `weight` is its factor in a weighted set, 1 alone."""

    adapter_id: str
    artifact_sha256: str
    weight: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is kept. `domains` are those of its adapters; both are empty for the base model alone."""

    generation_id: str
    answered_at: datetime
    caller: str
    requested_model: str
    routed: str
    fallback: str
    base_model: str
    base_model_revision: str
    domains: tuple[str, ...]
    adapters: tuple[AnsweredWith, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that is to be kept: its event, when it was given, the domains of its adapters, and those."""

    event: v1.GenerationCompleted
    at: datetime
    domains: tuple[str, ...]
    adapters: tuple[AnsweredWith, ...]


async def add_answers(connection: Connection, given: Sequence[Given]) -> None:
    """Keep answers that are not known yet."""
    events = [one.event for one in given]
    await connection.execute(
        """
        insert into answer (
            generation_id, answered_at, caller, requested_model, routed, fallback, base_model, base_model_revision,
            domains, adapters
        )
        select generation_id, answered_at, caller, requested_model, routed, fallback, base_model, base_model_revision,
            array(select jsonb_array_elements_text(domains::jsonb)), adapters::jsonb
        from unnest(
            $1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[]
        ) as given (
            generation_id, answered_at, caller, requested_model, routed, fallback, base_model, base_model_revision,
            domains, adapters
        )
        on conflict do nothing
        """,
        [event.generation_id for event in events],
        [one.at for one in given],
        [event.caller for event in events],
        [event.requested_model for event in events],
        [event.routed for event in events],
        [event.fallback for event in events],
        [event.base_model for event in events],
        [event.base_model_revision for event in events],
        # As text: asyncpg takes a list of lists for an array of two dimensions.
        [json.dumps(one.domains) for one in given],
        [json.dumps([asdict(adapter) for adapter in one.adapters]) for one in given],
    )


async def find_answer(connection: Connection, generation_id: str) -> Answer | None:
    row = await connection.fetchrow("select * from answer where generation_id = $1", generation_id)
    if row is None:
        return None
    adapters = tuple(AnsweredWith(**one) for one in row["adapters"])
    return Answer(**{**dict(row), "domains": tuple(row["domains"]), "adapters": adapters})


async def forget_answers(connection: Connection, age: timedelta) -> bool:
    """Delete a batch of answers that are older; returns whether there may be more."""
    status = await connection.execute(
        """
        delete from answer where generation_id in (
            select generation_id from answer where answered_at < now() - $1::interval order by answered_at limit $2
        )
        """,
        age,
        BATCH,
    )
    return int(status.rsplit(maxsplit=1)[-1]) >= BATCH
