"""Rows that transitions read and write: one SQL statement a function, connection first.

The column `made_of` holds the `Submission`: the release before this one reads it under that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from pydantic import TypeAdapter

from fleet_events.v1 import Method
from fleet_kit.db import Connection
from services.registry.family import Adapter, Evaluation, Status, Submission
from services.registry.policy import Policy
from services.registry.transition import AuditEntry
from services.registry.version import SemVer

_SUBMISSION = TypeAdapter(Submission)
_EVALUATION = TypeAdapter(Evaluation)
_POLICY = TypeAdapter(Policy)


async def open_family(connection: Connection, family_id: str, domain: str, method: Method) -> None:
    """Make the family's row where there is none yet."""
    await connection.execute(
        "insert into family (family_id, domain, method) values ($1, $2, $3) on conflict do nothing",
        family_id,
        domain,
        method.value,
    )


async def lock_family(connection: Connection, family_id: str) -> int:
    """Hold the family until the transaction ends; returns its revision."""
    return int(
        await connection.fetchval("select revision from family where family_id = $1 for update", family_id),
    )


async def save_revision(connection: Connection, family_id: str, revision: int) -> None:
    await connection.execute("update family set revision = $2 where family_id = $1", family_id, revision)


async def family_adapters(connection: Connection, family_id: str) -> tuple[Adapter, ...]:
    """Every version of a family, lowest first."""
    rows = await connection.fetch("select * from adapter where family_id = $1 order by major, minor, patch", family_id)
    return tuple(adapter_of(row) for row in rows)


async def find_adapter(connection: Connection, adapter_id: str) -> Adapter | None:
    row = await connection.fetchrow("select * from adapter where adapter_id = $1", adapter_id)
    return adapter_of(row) if row else None


async def find_adapters(connection: Connection, adapter_ids: Sequence[str]) -> dict[str, Adapter]:
    """Those of these versions that are registered, by their ids."""
    rows = await connection.fetch("select * from adapter where adapter_id = any($1)", adapter_ids)
    return {row["adapter_id"]: adapter_of(row) for row in rows}


async def find_job(connection: Connection, job_id: str) -> Adapter | None:
    """The version that a training job became."""
    row = await connection.fetchrow("select * from adapter where job_id = $1", job_id)
    return adapter_of(row) if row else None


async def save_adapter(connection: Connection, adapter: Adapter) -> None:
    """Insert a version, or update what of it can change."""
    submission = adapter.submission
    await connection.execute(
        """
        insert into adapter (
            adapter_id, family_id, domain, method, major, minor, patch, base_model, base_model_revision,
            artifact_sha256, job_id, made_of, registered_at,
            status, active, decided_by, decided_at, decision_reason, decided_on, evaluation, held, released_at
        ) values (
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22
        )
        on conflict (adapter_id) do update set
            status = excluded.status, active = excluded.active, decided_by = excluded.decided_by,
            decided_at = excluded.decided_at, decision_reason = excluded.decision_reason,
            decided_on = excluded.decided_on, evaluation = excluded.evaluation,
            held = excluded.held, released_at = excluded.released_at
        """,
        adapter.adapter_id,
        submission.family,
        submission.domain,
        submission.method,
        adapter.version.major,
        adapter.version.minor,
        adapter.version.patch,
        submission.base_model.name,
        submission.base_model.revision,
        adapter.artifact_sha256,
        submission.training.job_id if submission.training else None,
        _SUBMISSION.dump_python(submission, mode="json"),
        adapter.registered_at,
        adapter.status.value,
        adapter.active,
        adapter.decided_by,
        adapter.decided_at,
        adapter.decision_reason,
        adapter.decided_on,
        _EVALUATION.dump_python(adapter.evaluation, mode="json") if adapter.evaluation else None,
        adapter.held,
        adapter.released_at,
    )


async def add_evaluation(connection: Connection, adapter_id: str, evaluation: Evaluation) -> bool:
    """Keep a score; False when this evaluation is known already."""
    added = await connection.fetchval(
        """
        insert into evaluation (evaluation_id, adapter_id, scored_at, body) values ($1, $2, $3, $4)
        on conflict do nothing returning true
        """,
        evaluation.evaluation_id,
        adapter_id,
        evaluation.scored_at,
        _EVALUATION.dump_python(evaluation, mode="json"),
    )
    return bool(added)


async def find_evaluation(connection: Connection, evaluation_id: str) -> Evaluation | None:
    body = await connection.fetchval("select body from evaluation where evaluation_id = $1", evaluation_id)
    return _EVALUATION.validate_python(body) if body else None


async def evaluations_of(connection: Connection, adapter_id: str) -> tuple[Evaluation, ...]:
    """Scores of a version, oldest first."""
    rows = await connection.fetch("select body from evaluation where adapter_id = $1 order by scored_at", adapter_id)
    return tuple(_EVALUATION.validate_python(row["body"]) for row in rows)


async def add_audit(connection: Connection, domain: str, entry: AuditEntry) -> None:
    await connection.execute(
        """
        insert into audit (subject, domain, at, actor, action, reason, before, after, revision)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        entry.subject,
        domain,
        entry.act.at,
        entry.act.by,
        entry.action,
        entry.act.reason,
        entry.before,
        entry.after,
        entry.revision,
    )


async def find_policy(connection: Connection, domain: str) -> Policy:
    """The domain's policy, or the default one."""
    body = await connection.fetchval("select body from policy where domain = $1", domain)
    return _POLICY.validate_python(body) if body else Policy()


async def lock_policy(connection: Connection, domain: str) -> None:
    """Let one transaction at a time change this domain's policy, the first change included."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('policy'), hashtext($1))", domain)


async def save_policy(connection: Connection, domain: str, policy: Policy, by: str, at: datetime) -> int:
    """Keep the domain's policy; returns its revision, which counts its changes."""
    return int(
        await connection.fetchval(
            """
            insert into policy (domain, body, updated_by, updated_at, revision) values ($1, $2, $3, $4, 1)
            on conflict (domain) do update
            set body = excluded.body, updated_by = excluded.updated_by, updated_at = excluded.updated_at,
                revision = policy.revision + 1
            returning revision
            """,
            domain,
            _POLICY.dump_python(policy, mode="json"),
            by,
            at,
        )
    )


async def add_refusal(
    connection: Connection, *, event_id: str, job_id: str, domain: str, artifact_sha256: str, field: str, reason: str
) -> None:
    """Keep why a finished training could not be registered."""
    await connection.execute(
        """
        insert into refusal (event_id, job_id, domain, artifact_sha256, field, reason)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (event_id) do update set field = excluded.field, reason = excluded.reason, at = now()
        """,
        event_id,
        job_id,
        domain,
        artifact_sha256,
        field,
        reason,
    )


async def remove_refusals(connection: Connection, job_id: str) -> None:
    """A replayed event has made it after all."""
    await connection.execute("delete from refusal where job_id = $1", job_id)


def adapter_of(row: asyncpg.Record) -> Adapter:
    """The version that a row of `adapter` holds."""
    return Adapter(
        adapter_id=row["adapter_id"],
        version=SemVer(row["major"], row["minor"], row["patch"]),
        submission=_SUBMISSION.validate_python(row["made_of"]),
        registered_at=row["registered_at"],
        status=Status(row["status"]),
        active=row["active"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        decision_reason=row["decision_reason"],
        decided_on=row["decided_on"],
        evaluation=_EVALUATION.validate_python(row["evaluation"]) if row["evaluation"] else None,
        held=row["held"],
        released_at=row["released_at"],
    )
