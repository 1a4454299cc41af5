"""Which of two answers people preferred: one SQL statement a function, connection first.

A row is one person's opinion of two answers. Their adapters are filled in from `answer` before preferences are
counted, and with every sweep, so that the order in which the events come does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from fleet_kit.db import Connection
from services.registry.comparing.evidence import Pair, Tally


async def add_preference(connection: Connection, preferred: str, other: str, by: str, at: datetime) -> None:
    """Keep that a person preferred one answer to another; their newer opinion of the same two replaces the older."""
    first, second = sorted((preferred, other))
    await connection.execute(
        """
        insert into preference (first_answer, second_answer, preferred_by, preferred, preferred_at)
        values ($1, $2, $3, $4, $5)
        on conflict (first_answer, second_answer, preferred_by) do update
        set preferred = excluded.preferred, preferred_at = excluded.preferred_at
        where preference.preferred_at < excluded.preferred_at
        """,
        first,
        second,
        by,
        preferred,
        at,
    )


async def name_adapters(connection: Connection) -> None:
    """Fill in who gave the answers that have become known; '' is the base model alone, or several adapters together."""
    await connection.execute(
        """
        update preference set
            first_adapter =
                case jsonb_array_length(one.adapters) when 1 then one.adapters->0->>'adapter_id' else '' end,
            second_adapter =
                case jsonb_array_length(two.adapters) when 1 then two.adapters->0->>'adapter_id' else '' end
        from answer one, answer two
        where first_adapter is null and one.generation_id = first_answer and two.generation_id = second_answer
        """
    )


async def tallies(connection: Connection, adapter_ids: Sequence[str]) -> dict[Pair, Tally]:
    """How often people preferred each of the versions to each other one."""
    rows = await connection.fetch(
        """
        select first_adapter, second_adapter,
            count(*) filter (where preferred = first_answer) as wins,
            count(*) filter (where preferred = second_answer) as losses
        from preference
        where first_adapter = any($1) and second_adapter = any($1) and first_adapter <> second_adapter
        group by first_adapter, second_adapter
        """,
        list(adapter_ids),
    )
    found: dict[Pair, Tally] = {}
    for row in rows:
        pair = (row["first_adapter"], row["second_adapter"])
        turned = found.pop((pair[1], pair[0]), Tally()).turned
        found[pair] = Tally(row["wins"] + turned.wins, 0, row["losses"] + turned.losses)
    return found


async def forget_unanswered(connection: Connection, age: timedelta) -> None:
    """Delete opinions about answers that never became known."""
    await connection.execute(
        """
        delete from preference
        where first_adapter is null and preferred_at < now() - $1::interval
        """,
        age,
    )
