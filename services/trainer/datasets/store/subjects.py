"""SQL of whom records are about: one statement a function, connection first."""

from dataclasses import dataclass
from typing import Literal

from fleet_kit.db import Connection

RecordedKind = Literal["sample", "preference", "answer", "feedback"]
"""What of a person is recorded; of answers and feedback the id is that of the answer."""


@dataclass(frozen=True)
class Recorded:
    """A record of a domain, and the message of a stream that it came in; over HTTP it came in none (sequence 0)."""

    domain: str
    kind: RecordedKind
    record_id: str
    stream: str = ""
    sequence: int = 0


async def subject_key(connection: Connection) -> bytes:
    """What digests of names are keyed with."""
    return bytes(await connection.fetchval("select key from subject_key"))


async def lock_recording(connection: Connection) -> None:
    """Until the transaction ends nobody is begun to be forgotten. One lock for all: an upload may name many people."""
    await connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('trainer.subjects', 107))")


async def lock_forgetting(connection: Connection) -> None:
    """Wait until no record about a person is being written, and let none be until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('trainer.subjects', 107))")


async def note_late(connection: Connection, subject: str, domain: str) -> str | None:
    """The request by which the person is forgotten in this domain, if any; counts the record that came too late."""
    found: str | None = await connection.fetchval(
        "update erasures set late = late + 1 where subject = $1 and domain in ($2, '*') returning erasure_id",
        subject,
        domain,
    )
    return found


async def forgotten_in(connection: Connection, domain: str) -> dict[str, str]:
    """The people of whom nothing is taken in a domain: keyed digest → request."""
    rows = await connection.fetch(
        "select subject, erasure_id from erasures where domain in ($1, '*') order by requested_at", domain
    )
    return {row["subject"]: row["erasure_id"] for row in rows}


async def add_record(connection: Connection, subject: str, record: Recorded) -> None:
    """Keep that a record is about a person."""
    await connection.execute(
        """
        insert into subject_records (domain, subject, kind, record_id, stream, sequence)
        values ($1, $2, $3, $4, $5, $6) on conflict do nothing
        """,
        record.domain,
        subject,
        record.kind,
        record.record_id,
        record.stream,
        record.sequence,
    )
