"""Builds side by side, fairly by domain: nobody waits behind another domain's queue or another domain's slow source."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fleet_cli.stack import Fleet
from fleet_kit import lease
from services.trainer.datasets.store import build_queue
from tests.conftest import RunningService, RunService
from tests.integration.trainer.building import as_jsonl, upload
from tests.integration.trainer.conftest import Bench, eventually

pytestmark = pytest.mark.integration

ROWS = [{"prompt": f"What is gate {n}?", "completion": f"Gate {n} opens at dusk."} for n in range(8)]
SOURCE_SECONDS = 12.0


@asynccontextmanager
async def dripping() -> AsyncIterator[str]:
    """A document store that sends a document a second and never ends; yields its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                line = json.dumps({"id": secrets.token_hex(4), "title": "gate", "text": "opens"}).encode() + b"\n"
                writer.write(b"%x\r\n%s\r\n" % (len(line), line))
                await writer.drain()
                await asyncio.sleep(1)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the trainer has gone
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/documents"
    server.close()


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    async with (
        dripping() as store,
        run_service(
            "trainer",
            LORAFLEET_BASE_MODEL=str(tiny_model),
            LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("trainer")),
            LORAFLEET_THREADS="1",
            LORAFLEET_LEASE_SECONDS="4",
            LORAFLEET_SOURCE_SECONDS=str(SOURCE_SECONDS),
            LORAFLEET_BUILDS_PER_DOMAIN="1",
            LORAFLEET_BUILD_WORKERS="2",
            LORAFLEET_DOCUMENT_STORES=json.dumps({"slow": {"url": store}}),
        ) as started,
    ):
        yield started


async def queue(bench: Bench, domain: str, source: dict[str, Any], name: str = "gates") -> str:
    body = {"domain": domain, "name": name, "sources": [source]}
    answer = await bench.trainer.client.post("/v1/datasets", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["build_id"])


async def ended(bench: Bench, build_id: str, timeout: float = 60.0) -> dict[str, Any]:
    async def check() -> Any:
        found = (await bench.trainer.client.get(f"/v1/datasets/builds/{build_id}")).json()
        return found if found["state"] in ("succeeded", "failed") else None

    return dict(await eventually(check, timeout))


async def states(bench: Bench, domain: str) -> list[str]:
    builds = (await bench.trainer.client.get("/v1/datasets/builds", params={"limit": 1000})).json()["builds"]
    return [one["state"] for one in builds if one["domain"] == domain]


async def test_a_build_does_not_wait_behind_forty_of_another_domain(bench: Bench) -> None:
    alpha, beta = bench.domain, f"{bench.domain}-beta"
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    begun = time.monotonic()
    await ended(bench, await queue(bench, alpha, source, "first"))
    one_build = time.monotonic() - begun
    bench.domain = beta
    others = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    bench.domain = alpha
    for number in range(40):
        await queue(bench, alpha, source, f"gates-{number}")
    before, begun = (await states(bench, alpha)).count("succeeded"), time.monotonic()
    found = await ended(bench, await queue(bench, beta, others))
    took, after = time.monotonic() - begun, (await states(bench, alpha)).count("succeeded")
    print(f"one build {one_build:.1f} s; beta behind 40: {took:.1f} s, {after - before} of alpha ended meanwhile")
    assert found["state"] == "succeeded", found["faults"]
    assert after - before <= 3
    assert (await states(bench, alpha)).count("running") <= 1


@pytest.mark.heavy
async def test_a_slow_document_store_delays_no_other_domain_and_ends_by_its_own_deadline(bench: Bench) -> None:
    slow, quick = bench.domain, f"{bench.domain}-quick"
    bench.domain = quick
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    slow_build = await queue(bench, slow, {"kind": "documents", "store": "slow", "query": "gate"})

    async def running() -> bool:
        return await states(bench, slow) == ["running"]

    await eventually(running, 60)
    begun = time.monotonic()
    assert (await ended(bench, await queue(bench, quick, source)))["state"] == "succeeded"
    took = time.monotonic() - begun
    assert await states(bench, slow) == ["running"], f"the quick build took {took:.1f} s"
    found = await ended(bench, slow_build)
    (fault,) = found["faults"]
    assert (fault["field"], fault["value"]) == ("sources.0", f"documents is not read within {SOURCE_SECONDS:g} s")
    assert found["attempts"] == 1


async def test_the_domain_served_longest_ago_is_next_and_a_lost_lease_frees_its_build(servers: Fleet) -> None:
    connection = await asyncpg.connect(servers.info.database_admin_url, server_settings={"search_path": "trainer"})
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("delete from dataset_builds")
        for number, domain in enumerate(["a", "a", "a", "b", "c"]):
            await connection.execute(
                "insert into dataset_builds (build_id, domain, recipe, requested_by, requested_domains, state, created_at)"
                " values ($1, $2, $3, '', array[$2], 'queued', now() + $4)",
                f"{domain}{number}",
                domain,
                json.dumps({"domain": domain, "name": "x", "sources": [{"kind": "live"}]}),
                timedelta(seconds=number),
            )
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

        async def claim(ticket: str, at_most: int = 2) -> str | None:
            taken = await lease.acquire(connection, ticket, ticket, timedelta(seconds=60))
            assert taken is not None
            found = await build_queue.claim(connection, ticket, taken.token, at_most=at_most)
            if found is not None:
                await connection.execute(
                    "update dataset_builds set state = 'running' where build_id = $1", found.build_id
                )
            return found.build_id if found else None

        assert [await claim(f"t{number}") for number in range(5)] == ["a0", "b3", "c4", "a1", None]
        assert await build_queue.any_waits(connection)
        assert await claim("t5", at_most=3) == "a2"
        # The worker with ticket t1 is lost: its build waits, and any ticket may take it up.
        await connection.execute("update lease set expires_at = now() - interval '1 s' where name = 't1'")
        assert await claim("t6") == "b3"
        with pytest.raises(Exception, match="claimed by another worker"):
            await build_queue.held(connection, "b3", "t1", 1)
        assert (await build_queue.held(connection, "b3", "t6", 1)).build_id == "b3"
    finally:
        await transaction.rollback()
        await connection.close()
