"""SQL of evaluations: one statement a function, connection first. golden/ and judging/ have their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import asyncpg

from fleet_kit.db import Connection
from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.domain import Evaluation, SampleResult
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.judgement import Standing, Verdict


def evaluation_of(row: asyncpg.Record) -> Evaluation:
    return Evaluation(**{name: row[name] for name in Evaluation.__dataclass_fields__})


def result_of(row: asyncpg.Record) -> SampleResult:
    verdicts = {Criterion(name): Verdict(**verdict) for name, verdict in row["verdicts"].items()}
    metrics = {name: Measured(**measured) for name, measured in row["metrics"].items()}
    made = {"verdicts": verdicts, "standing": Standing(row["standing"]), "vetoes": tuple(row["vetoes"])}
    made |= {"metrics": metrics}
    return SampleResult(**{name: row[name] for name in SampleResult.__dataclass_fields__} | made)


async def know_candidate(
    connection: Connection,
    *,
    adapter_id: str,
    family: str,
    domain: str,
    artifact_sha256: str,
    base_model: str,
    base_revision: str,
) -> None:
    """Remember a registered version; a version never changes, so what is known stays."""
    await connection.execute(
        "insert into candidate (adapter_id, family, domain, artifact_sha256, base_model, base_revision)"
        " values ($1, $2, $3, $4, $5, $6) on conflict (adapter_id) do nothing",
        adapter_id,
        family,
        domain,
        artifact_sha256,
        base_model,
        base_revision,
    )


async def candidate(connection: Connection, adapter_id: str) -> asyncpg.Record | None:
    return await connection.fetchrow("select * from candidate where adapter_id = $1", adapter_id)


async def know_active(connection: Connection, family: str, adapter_id: str, revision: int, at: datetime) -> None:
    """Remember the family's active version unless a newer revision is known."""
    await connection.execute(
        "insert into active_adapter as known (family, adapter_id, revision, activated_at) values ($1, $2, $3, $4)"
        " on conflict (family) do update set adapter_id = $2, revision = $3, activated_at = $4"
        " where known.revision < $3",
        family,
        adapter_id,
        revision,
        at,
    )


async def active(connection: Connection, family: str) -> asyncpg.Record | None:
    """The family's active version as a candidate row, once both are known from the registry."""
    return await connection.fetchrow(
        "select c.* from active_adapter a join candidate c using (adapter_id) where a.family = $1", family
    )


async def open_evaluation(
    connection: Connection,
    *,
    evaluation_id: str,
    adapter_id: str,
    family: str,
    domain: str,
    artifact_sha256: str,
    base_model: str,
    wanted_dataset: str,
    judge: str,
    max_tokens: int,
    pass_threshold: float,
    requested_by: str,
    compares_for: str = "",
) -> None:
    """Queue the evaluation, unless it is there already."""
    await connection.execute(
        "insert into evaluation (evaluation_id, adapter_id, family, domain, artifact_sha256, base_model,"
        " wanted_dataset, judge, max_tokens, pass_threshold, state, requested_by, compares_for)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'queued', $11, $12) on conflict (evaluation_id) do nothing",
        evaluation_id,
        adapter_id,
        family,
        domain,
        artifact_sha256,
        base_model,
        wanted_dataset,
        judge,
        max_tokens,
        pass_threshold,
        requested_by,
        compares_for,
    )


async def evaluation(connection: Connection, evaluation_id: str) -> Evaluation | None:
    row = await connection.fetchrow("select * from evaluation where evaluation_id = $1", evaluation_id)
    return evaluation_of(row) if row else None


async def begin(
    connection: Connection,
    evaluation_id: str,
    *,
    dataset_id: str,
    version: str,
    golden_sha256: str,
    total: int,
    judge: str,
) -> None:
    """Pin what is judged with, unless that was done before."""
    await connection.execute(
        "update evaluation set state = 'running', dataset_id = $2, version = $3, golden_sha256 = $4, total = $5,"
        " judge = $6 where evaluation_id = $1 and state = 'queued'",
        evaluation_id,
        dataset_id,
        version,
        golden_sha256,
        total,
        judge,
    )


async def pin_artifact(connection: Connection, evaluation_id: str, artifact_sha256: str) -> str:
    """Set the digest that answers, if none is set; returns the one that holds."""
    pinned = await connection.fetchval(
        "update evaluation set artifact_sha256 = case artifact_sha256 when '' then $2 else artifact_sha256 end"
        " where evaluation_id = $1 returning artifact_sha256",
        evaluation_id,
        artifact_sha256,
    )
    return str(pinned)


async def set_waiting(connection: Connection, evaluation_id: str, *, waiting: bool) -> None:
    """Since when inference cannot serve the adapter; the first time counts."""
    await connection.execute(
        "update evaluation set waiting_since = case when $2 then coalesce(waiting_since, now()) end"
        " where evaluation_id = $1",
        evaluation_id,
        waiting,
    )


async def add_result(
    connection: Connection, evaluation_id: str, result: SampleResult, evidence: dict[str, Any]
) -> None:
    await connection.execute(
        "insert into sample_result (evaluation_id, sample_id, answer, generation_id, finish_reason, overall,"
        " verdicts, evidence, standing, why, vetoes, metrics)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        evaluation_id,
        result.sample_id,
        result.answer,
        result.generation_id,
        result.finish_reason,
        result.overall,
        {str(c): {"score": v.score, "reason": v.reason} for c, v in result.verdicts.items()},
        evidence,
        str(result.standing),
        result.why,
        list(result.vetoes),
        {name: asdict(measured) for name, measured in result.metrics.items()},
    )


async def results(connection: Connection, evaluation_id: str) -> list[SampleResult]:
    rows = await connection.fetch(
        "select * from sample_result where evaluation_id = $1 order by sample_id", evaluation_id
    )
    return [result_of(row) for row in rows]


async def result_evidence(connection: Connection, evaluation_id: str) -> dict[str, dict[str, Any]]:
    """What each sample's judgement was made from, by sample id."""
    rows = await connection.fetch(
        "select sample_id, evidence from sample_result where evaluation_id = $1", evaluation_id
    )
    return {row["sample_id"]: row["evidence"] for row in rows}


async def result_rows(connection: Connection, evaluation_id: str) -> list[asyncpg.Record]:
    """Every judged sample with its question, for reports."""
    return await connection.fetch(
        "select r.*, s.system, s.history, s.prompt, s.expected_output, s.difficulty, s.criteria, s.context,"
        " s.expected_score, case when d.context_use = 'prompt' and s.context <> ''"
        " then s.context || E'\\n\\n' || s.prompt else s.prompt end as question"
        " from sample_result r join evaluation e using (evaluation_id)"
        " join golden_sample s using (dataset_id, version, sample_id)"
        " join golden_dataset d using (dataset_id, version)"
        " where r.evaluation_id = $1 order by s.position",
        evaluation_id,
    )


async def finish_scored(
    connection: Connection,
    evaluation_id: str,
    *,
    summary: dict[str, Any],
    comparison: dict[str, Any] | None,
    preference: dict[str, Any] | None,
    report: dict[str, Any],
) -> None:
    await connection.execute(
        "update evaluation set state = 'scored', summary = $2, comparison = $3, report = $4, preference = $5,"
        " finished_at = now(), waiting_since = null where evaluation_id = $1",
        evaluation_id,
        summary,
        comparison,
        report,
        preference,
    )


async def finish_failed(connection: Connection, evaluation_id: str, reason: str) -> None:
    await connection.execute(
        "update evaluation set state = 'failed', reason = $2, finished_at = now() where evaluation_id = $1",
        evaluation_id,
        reason,
    )


async def rival(connection: Connection, judged: Evaluation) -> str | None:
    """Newest scored evaluation of the family's active other version with the same golden content and judge."""
    found = await connection.fetchval(
        "select e.evaluation_id from evaluation e join active_adapter a using (family, adapter_id)"
        " where e.family = $1 and e.adapter_id <> $2 and e.golden_sha256 = $3 and e.judge = $4 and e.max_tokens = $5"
        " and e.state = 'scored' order by e.finished_at desc limit 1",
        judged.family,
        judged.adapter_id,
        judged.golden_sha256,
        judged.judge,
        judged.max_tokens,
    )
    return None if found is None else str(found)


async def newest_scored(connection: Connection, adapter_id: str) -> Evaluation | None:
    """A version's newest score, by any judge."""
    row = await connection.fetchrow(
        "select * from evaluation where adapter_id = $1 and state = 'scored' order by finished_at desc limit 1",
        adapter_id,
    )
    return evaluation_of(row) if row else None


async def submission(connection: Connection, judged: Evaluation) -> int:
    """Which of the family's tries at this golden data set this is since a version was activated, from 1.

    Every version of the data set counts: a new one holds mostly the same samples. What failed showed no score.
    """
    before = await connection.fetchval(
        "select count(*) from evaluation e left join active_adapter a using (family)"
        " where e.family = $1 and e.dataset_id = $2 and e.state <> 'failed' and e.compares_for = ''"
        " and (e.created_at, e.evaluation_id) < ($3, $4) and e.created_at > coalesce(a.activated_at, '-infinity')",
        judged.family,
        judged.dataset_id,
        judged.created_at,
        judged.evaluation_id,
    )
    return 1 + int(before)


async def history(
    connection: Connection, *, adapter_id: str | None, domains: Sequence[str] | None, limit: int
) -> list[asyncpg.Record]:
    """Evaluations, newest first, with how many samples are done; domains None is all of them."""
    return await connection.fetch(
        "select e.*, (select count(*) from sample_result r where r.evaluation_id = e.evaluation_id) as done"
        " from evaluation e where ($1::text is null or adapter_id = $1)"
        " and ($2::text[] is null or domain = any($2)) order by created_at desc, evaluation_id limit $3",
        adapter_id,
        None if domains is None else list(domains),
        limit,
    )


async def evaluation_row(connection: Connection, evaluation_id: str) -> asyncpg.Record | None:
    return await connection.fetchrow(
        "select e.*, (select count(*) from sample_result r where r.evaluation_id = e.evaluation_id) as done"
        " from evaluation e where e.evaluation_id = $1",
        evaluation_id,
    )
