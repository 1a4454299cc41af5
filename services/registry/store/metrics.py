"""Numbers of versions that users measured themselves: one SQL statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fleet_kit.db import Connection


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A number that a user set. `samples` is how many things it was measured on; the interval is the user's own."""

    value: float
    ci_low: float | None
    ci_high: float | None
    samples: int | None
    note: str
    set_by: str
    set_at: datetime


async def own_metrics(connection: Connection, adapter_id: str) -> dict[str, OwnMetric]:
    """A version's metrics by name."""
    rows = await connection.fetch(
        """
        select name, value, ci_low, ci_high, samples, note, set_by, set_at
        from own_metric where adapter_id = $1 order by name
        """,
        adapter_id,
    )
    return {row["name"]: OwnMetric(**{key: value for key, value in row.items() if key != "name"}) for row in rows}


async def set_metric(connection: Connection, adapter_id: str, name: str, metric: OwnMetric) -> None:
    await connection.execute(
        """
        insert into own_metric (adapter_id, name, value, ci_low, ci_high, samples, note, set_by, set_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (adapter_id, name) do update set
            value = excluded.value, ci_low = excluded.ci_low, ci_high = excluded.ci_high, samples = excluded.samples,
            note = excluded.note, set_by = excluded.set_by, set_at = excluded.set_at
        """,
        adapter_id,
        name,
        metric.value,
        metric.ci_low,
        metric.ci_high,
        metric.samples,
        metric.note,
        metric.set_by,
        metric.set_at,
    )


async def remove_metric(connection: Connection, adapter_id: str, name: str) -> None:
    await connection.execute("delete from own_metric where adapter_id = $1 and name = $2", adapter_id, name)
