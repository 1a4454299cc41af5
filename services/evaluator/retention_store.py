"""SQL of what is kept of evaluations: one statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fleet_kit.db import Connection


@dataclass(frozen=True)
class LettingGo:
    """An evaluation whose texts its domain's rule lets go."""

    evaluation_id: str
    adapter_id: str


async def add_released(connection: Connection, adapter_id: str) -> None:
    """Keep that the registry has released a version."""
    await connection.execute("insert into released_version (adapter_id) values ($1) on conflict do nothing", adapter_id)


async def domains(connection: Connection) -> list[str]:
    """Domains with evaluations of released versions whose texts are still there."""
    rows = await connection.fetch(
        "select distinct domain from evaluation join released_version using (adapter_id)"
        " where let_go_at is null order by domain"
    )
    return [row["domain"] for row in rows]


async def removable(connection: Connection, domain: str, age: timedelta) -> list[LettingGo]:
    """Evaluations of a domain that have ended, of versions that were released so long ago."""
    rows = await connection.fetch(
        "select evaluation_id, adapter_id from evaluation join released_version using (adapter_id)"
        " where domain = $1 and let_go_at is null and state in ('scored', 'failed')"
        " and released_at < now() - $2::interval order by evaluation_id",
        domain,
        age,
    )
    return [LettingGo(**dict(row)) for row in rows]


async def delete_exchanges(connection: Connection, evaluation_id: str) -> None:
    """Forget what its judges were sent and answered; their objects go with the next sweep."""
    await connection.execute("delete from judge_exchange where evaluation_id = $1", evaluation_id)


async def delete_results(connection: Connection, evaluation_id: str) -> None:
    """Forget its answers, but for those that people have scored: judges are calibrated by them."""
    await connection.execute(
        "delete from sample_result where evaluation_id = $1 and not exists ("
        " select from human_label label where label.evaluation_id = sample_result.evaluation_id"
        " and label.sample_id = sample_result.sample_id)",
        evaluation_id,
    )


async def let_go(connection: Connection, evaluation_id: str) -> None:
    """Keep that its texts are let go: its report is an object that nothing refers to from now on."""
    await connection.execute("update evaluation set let_go_at = now() where evaluation_id = $1", evaluation_id)


@dataclass(frozen=True)
class SupersededGolden:
    """A golden version whose samples its domain's rule lets go."""

    dataset_id: str
    version: str


async def golden_domains(connection: Connection) -> list[str]:
    """Domains with golden versions that may be let go."""
    rows = await connection.fetch("select distinct domain from superseded_golden order by domain")
    return [row["domain"] for row in rows]


async def superseded_golden(connection: Connection, domain: str, age: timedelta) -> list[SupersededGolden]:
    """Golden versions of a domain that may be let go, and that have had a newer one for so long."""
    rows = await connection.fetch(
        "select dataset_id, version from superseded_golden where domain = $1 and superseded_at < now() - $2::interval"
        " order by dataset_id, version",
        domain,
        age,
    )
    return [SupersededGolden(**dict(row)) for row in rows]


async def let_golden_go(connection: Connection, dataset_id: str, version: str) -> bool:
    """Keep that a golden version is let go, unless something has come to need it; its row and its digest stay."""
    return bool(
        await connection.fetchval(
            "update golden_dataset set let_go_at = now() where (dataset_id, version) in"
            " (select dataset_id, version from superseded_golden where dataset_id = $1 and version = $2)"
            " returning true",
            dataset_id,
            version,
        )
    )


async def marked_objects(connection: Connection) -> frozenset[str]:
    """URIs of everything that evaluations refer to."""
    rows = await connection.fetch(
        "select report->>'uri' as uri from evaluation where report is not null and let_go_at is null"
        " union select request->>'uri' from judge_exchange union select answer->>'uri' from judge_exchange"
    )
    return frozenset(row["uri"] for row in rows)
