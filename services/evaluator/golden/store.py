"""SQL of golden data sets: one statement a function, connection first."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from fleet_kit.db import Connection
from services.evaluator.domain import GoldenVersion
from services.evaluator.golden.samples import ContextUse, GoldenSample, Turn


def _version_of(row: asyncpg.Record) -> GoldenVersion:
    return GoldenVersion(**{name: row[name] for name in GoldenVersion.__dataclass_fields__})


def _sample_of(row: asyncpg.Record) -> GoldenSample:
    history = tuple(Turn(**turn) for turn in row["history"])
    return GoldenSample(**{name: row[name] for name in GoldenSample.__dataclass_fields__} | {"history": history})


async def add_version(
    connection: Connection,
    *,
    dataset_id: str,
    version: str,
    domain: str,
    description: str,
    context_use: ContextUse,
    created_by: str,
) -> bool:
    """False if the version exists."""
    added = await connection.fetchval(
        "insert into golden_dataset (dataset_id, version, domain, description, context_use, created_by)"
        " values ($1, $2, $3, $4, $5, $6) on conflict (dataset_id, version) do nothing returning true",
        dataset_id,
        version,
        domain,
        description,
        context_use,
        created_by,
    )
    return bool(added)


async def lock_dataset(connection: Connection, dataset_id: str) -> None:
    """A change, freeze or version of a data set waits here until the other transaction has ended."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('golden:' || $1, 0))", dataset_id)


async def versions(connection: Connection, dataset_id: str) -> list[GoldenVersion]:
    """All versions, newest first."""
    rows = await connection.fetch(
        "select g.*, (select count(*) from golden_sample s where (s.dataset_id, s.version) = (g.dataset_id, g.version))"
        " as total_samples from golden_dataset g where dataset_id = $1 order by ordinal desc",
        dataset_id,
    )
    return [_version_of(row) for row in rows]


async def newest_of_domain(connection: Connection, domain: str) -> GoldenVersion | None:
    """The domain's newest version that has samples."""
    row = await connection.fetchrow(
        "select g.*, c.total_samples from golden_dataset g cross join lateral"
        " (select count(*) as total_samples from golden_sample s"
        " where (s.dataset_id, s.version) = (g.dataset_id, g.version)) c"
        " where g.domain = $1 and c.total_samples > 0 order by g.ordinal desc limit 1",
        domain,
    )
    return _version_of(row) if row else None


async def newest_of_each(
    connection: Connection, *, domain: str | None, domains: Sequence[str] | None
) -> list[GoldenVersion]:
    """Every data set's newest version, by id; domains None is all of them."""
    rows = await connection.fetch(
        "select distinct on (g.dataset_id) g.*, (select count(*) from golden_sample s"
        " where (s.dataset_id, s.version) = (g.dataset_id, g.version)) as total_samples from golden_dataset g"
        " where ($1::text is null or g.domain = $1) and ($2::text[] is null or g.domain = any($2))"
        " order by g.dataset_id, g.ordinal desc",
        domain,
        None if domains is None else list(domains),
    )
    return [_version_of(row) for row in rows]


async def samples(connection: Connection, dataset_id: str, version: str) -> list[GoldenSample]:
    """The version's samples in their order, without those that were erased."""
    rows = await connection.fetch(
        "select * from golden_sample where dataset_id = $1 and version = $2 and not erased order by position",
        dataset_id,
        version,
    )
    return [_sample_of(row) for row in rows]


async def clear_samples(connection: Connection, dataset_id: str, version: str) -> None:
    await connection.execute("delete from golden_sample where dataset_id = $1 and version = $2", dataset_id, version)


async def add_samples(connection: Connection, dataset_id: str, version: str, added: Sequence[GoldenSample]) -> None:
    """Store all samples of an open version, in this order."""
    await connection.executemany(
        "insert into golden_sample (dataset_id, version, position, sample_id, prompt, expected_output,"
        " expected_score, difficulty, criteria, context, system, history, tests, subject)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        [
            (
                dataset_id,
                version,
                position,
                sample.sample_id,
                sample.prompt,
                sample.expected_output,
                sample.expected_score,
                sample.difficulty,
                dict(sample.criteria),
                sample.context,
                sample.system,
                [{"role": turn.role, "content": turn.content} for turn in sample.history],
                sample.tests,
                sample.subject,
            )
            for position, sample in enumerate(added)
        ],
    )


async def raise_revision(connection: Connection, dataset_id: str, version: str) -> int:
    """Count a publication of the version; returns its number, from 1."""
    revision = await connection.fetchval(
        "update golden_dataset set revision = revision + 1 where dataset_id = $1 and version = $2 returning revision",
        dataset_id,
        version,
    )
    return int(revision)


async def unpublished(connection: Connection) -> list[GoldenVersion]:
    """Versions with samples that were never published, held against other writers; the oldest first."""
    rows = await connection.fetch(
        "select g.*, c.total_samples from golden_dataset g cross join lateral"
        " (select count(*) as total_samples from golden_sample s"
        " where (s.dataset_id, s.version) = (g.dataset_id, g.version)) c"
        " where g.revision = 0 and c.total_samples > 0 order by g.ordinal for update of g skip locked"
    )
    return [_version_of(row) for row in rows]


async def freeze(connection: Connection, dataset_id: str, version: str, sha256: str) -> None:
    """Nothing of the version changes from now on."""
    await connection.execute(
        "update golden_dataset set frozen_at = now(), sha256 = $3"
        " where dataset_id = $1 and version = $2 and frozen_at is null",
        dataset_id,
        version,
        sha256,
    )
