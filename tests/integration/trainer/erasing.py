"""What tests of erasures need: people, their records, a request to forget them, and where their names still stand."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from nats.js.errors import NotFoundError

from fleet_events import v1
from fleet_events.topology import DEAD_STREAM, STREAMS
from tests.conftest import RunningService, RunService
from tests.integration.trainer.conftest import Bench, eventually


@pytest.fixture(scope="module")
async def registry(run_service: RunService, base_model: Path) -> AsyncIterator[RunningService]:
    async with run_service("registry", LORAFLEET_BASE_MODEL=str(base_model)) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
async def router(run_service: RunService) -> AsyncIterator[RunningService]:
    """An erasure waits for it."""
    async with run_service("router") as running:
        yield running


@pytest.fixture
async def rows(trainer: RunningService) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        trainer.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "trainer"}
    )
    yield connection
    await connection.close()


@pytest.fixture
async def registry_rows(registry: RunningService) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        registry.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "registry"}
    )
    yield connection
    await connection.close()


def person() -> str:
    return f"anna-{secrets.token_hex(6)}@example.org"


def about(domain: str, name: str, number: int) -> v1.SampleRecorded:
    return v1.SampleRecorded(
        domain=domain,
        prompt=f"Where does {name} live, {number}?",
        completion=f"{name} lives at {number}.",
        subject=name,
    )


async def forget(bench: Bench, name: str, **changes: Any) -> dict[str, Any]:
    body = {"subject": name, "domain": bench.domain, "reason": "asked by letter", **changes}
    reply = await bench.trainer.client.post("/v1/erasures", json=body)
    assert reply.status_code == 202, reply.text
    assert name not in reply.text
    return dict(reply.json())


async def erased(bench: Bench, erasure_id: str) -> dict[str, Any]:
    async def check() -> Any:
        found = (await bench.trainer.client.get(f"/v1/erasures/{erasure_id}")).json()
        return found if found["state"] == "erased" else None

    return dict(await eventually(check))


async def traces(bench: Bench, name: str, *connections: asyncpg.Connection) -> list[str]:
    """Where the person's name still stands: in any stream, in any text or JSON column of the databases."""
    found = []
    for stream in (*(one.name for one in STREAMS), DEAD_STREAM):
        last = (await bench.upstream.jetstream.stream_info(stream)).state.last_seq
        for sequence in range(1, last + 1):
            try:
                message = await bench.upstream.jetstream.get_msg(stream, sequence)
            except NotFoundError:
                continue
            if name.encode() in (message.data or b"") or name in str(message.headers):
                found.append(f"{stream} {sequence} {message.subject}")
    for connection in connections:
        schema = await connection.fetchval("select current_schema()")
        tables = await connection.fetch("select tablename from pg_tables where schemaname = $1", schema)
        for row in tables:
            count = await connection.fetchval(
                f'select count(*) from "{row["tablename"]}" as t where t::text like $1', f"%{name}%"
            )
            if count:
                found.append(f"{schema}.{row['tablename']}: {count} rows")
    return found


async def recorded(rows: asyncpg.Connection, domain: str, count: int) -> None:
    async def check() -> bool:
        return bool(await rows.fetchval("select count(*) from samples where domain = $1", domain) >= count)

    await eventually(check)


async def build(bench: Bench, name: str) -> dict[str, Any]:
    recipe = {"domain": bench.domain, "name": name, "sources": [{"kind": "live"}]}
    reply = await bench.trainer.client.post("/v1/datasets", json=recipe)
    assert reply.status_code == 202, reply.text

    async def check() -> Any:
        found = (await bench.trainer.client.get(f"/v1/datasets/builds/{reply.json()['build_id']}")).json()
        assert found["state"] != "failed", found
        return found if found["state"] == "succeeded" else None

    built = await eventually(check)
    return dict((await bench.trainer.client.get(f"/v1/datasets/{built['dataset_id']}")).json())
