"""Rows of a query on a PostgreSQL database that the trainer's settings name."""

import asyncio
import json
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import asyncpg
from pydantic import Field

from services.trainer.datasets.sources.source import Access, BoundedFile, Gathered, Source
from services.trainer.datasets.sources.sql_connection import Opened, UnfitSource, open_source
from services.trainer.datasets.worker.spec import InputFile

_PREFETCH = 500
_READS = ("select", "with", "values", "table")


class SqlQuery(Source):
    """One SELECT on a database by its name in `LORAFLEET_SQL_SOURCES`; the columns of its rows make the records.

    It runs in a read-only transaction through a cursor, so that a large result neither fills this process nor changes
    anything, within a deadline that it cannot lift. What it may read is decided by the role in the database's own
    settings, which is never the trainer's role nor a superuser (see sql_connection.py).
    """

    kind: Literal["sql"] = "sql"
    database: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    query: Annotated[str, Field(min_length=1, max_length=20_000)]

    origin: ClassVar[str] = "sql"

    def originates(self) -> str:
        return f"sql:{self.database}"

    def check(self, access: Access) -> None:
        named = {name: one for name, one in access.service.settings.sql_sources.items() if one.reaches(access.domain)}
        if self.database not in named:
            known = ", ".join(sorted(named)) or "none is configured"
            raise access.fault("database", self.database, f"a name of LORAFLEET_SQL_SOURCES: {known}")
        if self.query.split(None, 1)[0].lower().strip("(") not in _READS:
            raise access.fault("query", repr(self.query[:60]), "a single SELECT")

    async def gather(self, to: Path, access: Access) -> Gathered:
        path = to / "rows.jsonl"
        service = access.service
        source, seconds = service.settings.sql_sources[self.database], service.settings.sql_seconds
        try:
            # Of our own clock: limits that the server keeps, a query can lift for itself.
            async with asyncio.timeout(seconds) as deadline:
                async with open_source(source, service.db, seconds=seconds) as connection:
                    rows = await self._copy(connection, path, access)
        except UnfitSource as error:
            raise access.fault("database", f"{self.database} ({error})", "a source that may only read") from error
        except TimeoutError as error:
            if deadline.expired():
                found = f"{self.query[:200]!r} takes more than {seconds:g} s"
                raise access.fault("query", found, "a quicker one, or a higher LORAFLEET_SQL_SECONDS") from None
            raise access.fault("database", f"{self.database} ({error})", "a database that answers") from error
        except (OSError, asyncpg.PostgresError) as error:
            # The message of a refused connection may name the role, never the password.
            raise access.fault("database", f"{self.database} ({error})", "a database that answers") from error
        return Gathered((InputFile(path=path, format="jsonl", name=self.database),), {"rows": rows})

    async def _copy(self, connection: Opened, path: Path, access: Access) -> int:
        try:
            with path.open("wb") as file:
                spool = BoundedFile(file, access, "query")
                # The extended protocol takes one statement, so nothing can be appended to the SELECT.
                async for row in connection.cursor(self.query, prefetch=_PREFETCH):
                    spool.write(json.dumps(_finite(row), ensure_ascii=False, default=str).encode())
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            found = f"{self.query[:200]!r} ({error})"
            raise access.fault("query", found, "one SELECT that the database runs") from error
        return spool.lines


def _finite(row: asyncpg.Record) -> dict[str, object]:
    """The row without NaN and infinities, which JSON has no number for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
