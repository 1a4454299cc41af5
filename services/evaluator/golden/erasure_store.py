"""SQL of erasing people from golden samples and from what was judged with them: one statement a function."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fleet_kit.blobs import BlobRef
from fleet_kit.db import Connection


@dataclass(frozen=True)
class SamplesAbout:
    """The samples of one golden version that are about a person."""

    dataset_id: str
    version: str
    domain: str
    sample_ids: tuple[str, ...]


async def subject_key(connection: Connection) -> bytes:
    """What digests of names are keyed with."""
    return bytes(await connection.fetchval("select key from subject_key"))


async def lock_importing(connection: Connection) -> None:
    """Until the transaction ends nobody is forgotten."""
    await connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('evaluator.subjects', 170))")


async def lock_forgetting(connection: Connection) -> None:
    """Wait until no sample about a person is being imported, and let none be until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('evaluator.subjects', 170))")


async def forgotten(connection: Connection, domain: str, digests: Collection[str]) -> set[str]:
    """Those of these people of whom no sample is taken in a domain."""
    rows = await connection.fetch(
        "select subject from forgotten_subject where subject = any($1) and domain in ($2, '*')", list(digests), domain
    )
    return {row["subject"] for row in rows}


async def add_forgotten(connection: Connection, digest: str, domain: str, erasure_id: str, deleted: int) -> None:
    """Take no sample about a person from now on."""
    await connection.execute(
        "insert into forgotten_subject (subject, domain, erasure_id, deleted) values ($1, $2, $3, $4)"
        " on conflict do nothing",
        digest,
        domain,
        erasure_id,
        deleted,
    )


async def samples_about(connection: Connection, subject: str, domain: str) -> list[SamplesAbout]:
    """The samples about a person in a domain ("*": in all), by version, the oldest version first."""
    rows = await connection.fetch(
        "select s.dataset_id, s.version, g.domain, array_agg(s.sample_id order by s.sample_id) as sample_ids"
        " from golden_sample s join golden_dataset g using (dataset_id, version)"
        " where s.subject = $1 and s.subject <> '' and ($2 = '*' or g.domain = $2)"
        " group by s.dataset_id, s.version, g.domain, g.ordinal order by g.ordinal",
        subject,
        domain,
    )
    return [SamplesAbout(**{**dict(row), "sample_ids": tuple(row["sample_ids"])}) for row in rows]


async def blank_samples(connection: Connection, dataset_id: str, version: str, sample_ids: Sequence[str]) -> None:
    """Take the text out of samples of a frozen version: which samples were judged stays."""
    await connection.execute(
        "update golden_sample set prompt = '', expected_output = '', criteria = '{}', context = '', system = '',"
        " history = '[]', tests = '', subject = '', erased = true"
        " where dataset_id = $1 and version = $2 and sample_id = any($3)",
        dataset_id,
        version,
        sample_ids,
    )


async def mark_erased(connection: Connection, dataset_id: str, version: str, erasure_id: str) -> None:
    """Keep that a version lost samples, so that nothing is judged with what is left of it."""
    await connection.execute(
        "update golden_dataset set erased_by = erased_by || $3::text"
        " where dataset_id = $1 and version = $2 and not $3 = any(erased_by)",
        dataset_id,
        version,
        erasure_id,
    )


async def blank_results(connection: Connection, one: SamplesAbout) -> int:
    """Take answers and what judges wrote of them out of the results of samples; scores stay. Returns how many."""
    status = await connection.execute(
        "update sample_result r set answer = '', why = '', evidence = '{}',"
        " verdicts = (select coalesce(jsonb_object_agg(key, value || '{\"reason\": \"\"}'), '{}')"
        " from jsonb_each(verdicts)),"
        " vetoes = (select coalesce(jsonb_agg('erased'::text), '[]') from jsonb_array_elements(vetoes)),"
        " metrics = (select coalesce(jsonb_object_agg(key, value || '{\"fault\": \"\"}'), '{}')"
        " from jsonb_each(metrics))"
        " from evaluation e where e.evaluation_id = r.evaluation_id and e.dataset_id = $1 and e.version = $2"
        " and r.sample_id = any($3)",
        one.dataset_id,
        one.version,
        one.sample_ids,
    )
    return int(status.rsplit(maxsplit=1)[-1])


async def blank_labels(connection: Connection, one: SamplesAbout) -> None:
    """Take the notes out of people's scores of these samples' answers; the scores stay."""
    await connection.execute(
        "update human_label l set note = '' from evaluation e where e.evaluation_id = l.evaluation_id"
        " and e.dataset_id = $1 and e.version = $2 and l.sample_id = any($3)",
        one.dataset_id,
        one.version,
        one.sample_ids,
    )


async def blank_pairs(connection: Connection, one: SamplesAbout) -> None:
    """Take the reasons out of comparisons of these samples' answers; who won stays."""
    await connection.execute(
        "update pair_result p set why = '', verdicts = case when verdicts is not null then"
        " (select coalesce(jsonb_object_agg(key, value || '{\"reason\": \"\"}'), '{}') from jsonb_each(verdicts)) end"
        " from evaluation e where e.evaluation_id = p.evaluation_id and e.dataset_id = $1 and e.version = $2"
        " and p.sample_id = any($3)",
        one.dataset_id,
        one.version,
        one.sample_ids,
    )


async def delete_exchanges(connection: Connection, one: SamplesAbout) -> list[BlobRef]:
    """Delete the exchanges with judges about these samples; returns their contents, two an exchange."""
    rows = await connection.fetch(
        "delete from judge_exchange x using evaluation e where e.evaluation_id = x.evaluation_id"
        " and e.dataset_id = $1 and e.version = $2 and x.sample_id = any($3) returning x.request, x.answer",
        one.dataset_id,
        one.version,
        one.sample_ids,
    )
    return [BlobRef.model_validate(row[name]) for row in rows for name in ("request", "answer")]


async def take_reports(connection: Connection, one: SamplesAbout) -> list[BlobRef]:
    """Forget the reports of evaluations with a version, which quote its samples; returns their objects."""
    rows = await connection.fetch(
        "with had as (select evaluation_id, report from evaluation"
        " where dataset_id = $1 and version = $2 and report is not null for update)"
        " update evaluation e set report = null from had"
        " where e.evaluation_id = had.evaluation_id returning had.report",
        one.dataset_id,
        one.version,
    )
    return [BlobRef.model_validate(row["report"]) for row in rows]


async def reports_used(connection: Connection, reports: Sequence[BlobRef]) -> set[str]:
    """URIs of those reports that an evaluation refers to."""
    rows = await connection.fetch(
        "select report->>'uri' as uri from evaluation where report->>'uri' = any($1)", [one.uri for one in reports]
    )
    return {row["uri"] for row in rows}
