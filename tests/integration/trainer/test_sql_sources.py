"""Databases that recipes query: deadlines that no query lifts, and never the fleet's own data."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr, ValidationError

from fleet_cli.stack import Fleet
from fleet_kit.db import Pool, connect_pool
from services.trainer.datasets.settings import SqlSource
from services.trainer.datasets.sources.sql_connection import UnfitSource, check_sources, open_source
from services.trainer.settings import TrainerSettings
from tests.conftest import RunningService, RunService, ServiceEnv
from tests.integration.trainer.building import refused
from tests.integration.trainer.conftest import Bench
from tests.integration.trainer.foreign_database import foreign_database, url_of

pytestmark = pytest.mark.integration

SECONDS = 3.0


@pytest.fixture(scope="module")
async def questions(servers: Fleet) -> AsyncIterator[str]:
    async with foreign_database(servers, "questions") as url:
        connection = await asyncpg.connect(url)
        await connection.execute("create table questions as select n as id, 'p' || n as prompt, 'c' || n as completion"
                                 " from generate_series(1, 3000) n")  # fmt: skip
        await connection.close()
        yield url


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, questions: str
) -> AsyncIterator[RunningService]:
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("trainer")),
        LORAFLEET_THREADS="1",
        LORAFLEET_SQL_SECONDS=str(SECONDS),
        LORAFLEET_SQL_SOURCES=json.dumps({"questions": questions}),
    ) as started:
        yield started


@pytest.fixture
async def own(service_env: ServiceEnv) -> AsyncIterator[Pool]:
    pool = await connect_pool("trainer", service_env("trainer")["LORAFLEET_DATABASE_URL"], 2)
    yield pool
    await pool.close()


LIFTED = "set_config('statement_timeout', '0', false), set_config('transaction_timeout', '0', false)"


@pytest.mark.parametrize(
    "query",
    [
        f"select {LIFTED}, pg_sleep(60)",
        # The first rows come at once, the rest never.
        f"select {LIFTED}, id, prompt, completion, case when id > 600 then pg_sleep(60)::text end as late from questions",
        "select pg_sleep(0.02)::text as slow, prompt, completion from questions",
    ],
    ids=["sleeps", "sleeps-behind-the-first-rows", "drips"],
)
async def test_no_query_runs_longer_than_its_limit_with_any_settings_of_its_own(
    bench: Bench, questions: str, query: str
) -> None:
    begun = time.monotonic()
    (fault,) = await refused(bench, {"kind": "sql", "database": "questions", "query": query})
    took = time.monotonic() - begun
    assert fault.startswith("sources.0.query: "), fault
    assert "takes more than 3 s" in fault or "statement timeout" in fault
    assert took < SECONDS + 12, f"{took:.1f} s"
    connection = await asyncpg.connect(questions)
    for _ in range(30):
        busy = await connection.fetchval(
            "select count(*) from pg_stat_activity where application_name = 'lorafleet-trainer' and state <> 'idle'"
        )
        if not busy:
            break
        await asyncio.sleep(0.1)
    await connection.close()
    assert not busy, "the query runs on in the server"


async def test_a_query_cannot_leave_its_read_only_transaction(bench: Bench, questions: str) -> None:
    for query in (
        "select set_config('transaction_read_only', 'off', false), prompt, completion from questions",
        "select 1; set transaction read write; delete from questions",
        "with gone as (delete from questions returning *) select * from gone",
    ):
        (fault,) = await refused(bench, {"kind": "sql", "database": "questions", "query": query})
        assert fault.startswith("sources.0.query: "), fault
    connection = await asyncpg.connect(questions)
    assert await connection.fetchval("select count(*) from questions") == 3000
    await connection.close()


async def test_the_fleet_s_own_database_and_role_are_no_source_under_any_name(
    servers: Fleet, own: Pool, service_env: ServiceEnv, questions: str
) -> None:
    async def opened(dsn: str) -> None:
        async with open_source(SqlSource(dsn=SecretStr(dsn)), own, seconds=5) as connection:
            assert await connection.fetchval("select count(*) from questions") == 3000

    trainers = service_env("trainer")["LORAFLEET_DATABASE_URL"]
    parts, foreign = urlsplit(trainers), urlsplit(questions)
    await opened(questions)
    role = str(foreign.username)
    inside = url_of(servers, role=role, password=str(foreign.password), database=parts.path.strip("/"))
    outside = url_of(servers, role=str(parts.username), password=str(parts.password), database=foreign.path.strip("/"))
    for dsn, reason in (
        (trainers, "the fleet's own database"),
        (inside, "the fleet's own database"),
        (outside, "is the trainer's own"),
        (servers.info.database_admin_url.replace(urlsplit(servers.info.database_admin_url).path, foreign.path),
         "superuser; give the source"),
    ):  # fmt: skip
        with pytest.raises((UnfitSource, asyncpg.InsufficientPrivilegeError)) as unfit:
            await opened(dsn)
        assert reason in str(unfit.value) or "permission denied for database" in str(unfit.value)
    admin = await asyncpg.connect(servers.info.database_admin_url)
    await admin.execute(f"grant pg_read_server_files to {role}")
    try:
        with pytest.raises(UnfitSource, match=r"LORAFLEET_SQL_SOURCES: files: .* has pg_read_server_files"):
            await check_sources({"files": SqlSource(dsn=SecretStr(questions))}, own)
    finally:
        await admin.execute(f"revoke pg_read_server_files from {role}")
        await admin.close()


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ("postgres://reader:x@127.0.0.1:5432/lorafleet", False),
        ("postgres://reader:x@localhost/?dbname=lorafleet", False),
        ("postgres://trainer:x@localhost:5432/faq", False),
        ("postgres://reader:x@localhost:5432/faq?user=trainer", False),
        ("postgres://reader:x@localhost:5432/faq", True),
        ("postgres://trainer:x@db.example.com/lorafleet", True),
        ("postgres://reader:x@one.example.com:5432,two.example.com:5433/faq", True),
    ],
)
def test_a_source_that_names_the_trainer_s_own_database_or_role_is_no_setting(source: str, fits: bool) -> None:
    def configured() -> TrainerSettings:
        values: dict[str, Any] = {
            "nats_url": "nats://localhost",
            "database_url": "postgres://trainer:y@localhost:5432/lorafleet",
            "s3_endpoint": "localhost",
            "s3_access_key": "a",
            "s3_secret_key": "b",
            "jwks": "keys.json",
            "base_model": "model",
            "sql_sources": {"faq": source},
        }
        return TrainerSettings.model_validate(values)

    if fits:
        assert configured().sql_sources
    else:
        with pytest.raises(ValidationError, match="the trainer's own database or role") as refusal:
            configured()
        assert ":x@" not in str(refusal.value)
