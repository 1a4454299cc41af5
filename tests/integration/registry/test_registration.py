"""A registration takes as long as its files are large, and holds nothing of the database meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from fleet_kit.tasks import end
from tests.conftest import RunService, ServiceEnv
from tests.integration.registry.conftest import Upstream, eventually

pytestmark = pytest.mark.integration


class SlowStore:
    """Leads to the real object store, and keeps every download back until it is told to let them go."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._target = parts.hostname or "", parts.port or 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.held = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        answers = asyncio.create_task(self._pass_on(there, writer))
        try:
            while chunk := await reader.read(65536):
                if chunk.startswith(b"GET ") and not self.go_on.is_set():
                    self.held += 1
                    await self.go_on.wait()
                back.write(chunk)
        finally:
            back.close()
            await end(answers)

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()


async def test_no_transaction_is_open_while_the_files_of_a_training_are_fetched(
    run_service: RunService, service_env: ServiceEnv, upstream: Upstream, base_model: Path, domain: str
) -> None:
    env = service_env("registry")
    store = SlowStore(env["LORAFLEET_S3_ENDPOINT"])
    watcher = await asyncpg.connect(env["LORAFLEET_DATABASE_URL"])

    async def in_transaction() -> list[str]:
        rows = await watcher.fetch(
            "select query from pg_stat_activity where application_name = 'registry' and pid <> pg_backend_pid()"
            " and datname = current_database() and xact_start < now() - interval '0.5 seconds'"
        )
        return [row["query"] for row in rows]

    async with store.listening() as address:
        changes = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_S3_ENDPOINT": address}
        async with run_service("registry", **changes) as registry:
            event = await upstream.trained(domain)
            store.go_on.clear()
            await upstream.publish(event)

            async def held() -> int:
                return store.held

            await eventually(held)
            seen: list[str] = []
            for _ in range(20):
                seen += await in_transaction()
                await asyncio.sleep(0.1)
            assert seen == []
            store.go_on.set()

            async def registered() -> Any:
                answer = await registry.client.get("/v1/adapters", params={"domain": domain})
                return answer.json()["adapters"]

            (adapter,) = await eventually(registered)
            assert adapter["artifact_sha256"] == event.artifact.blob.sha256
    await watcher.close()


async def test_a_training_that_comes_twice_at_once_is_registered_once(
    run_service: RunService, upstream: Upstream, base_model: Path, domain: str
) -> None:
    """Under two events' ids, to two replicas: the lease is the job's, not the event's."""
    base = {"LORAFLEET_BASE_MODEL": str(base_model)}
    async with run_service("registry", **base) as registry, run_service("registry", **base):
        event = await upstream.trained(domain)
        for _ in range(2):
            await upstream.publish(event)

        async def handled() -> bool:
            info = await upstream.jetstream.consumer_info("LORAFLEET", "registry-training_completed")
            return info.num_pending == 0 and info.num_ack_pending == 0

        await eventually(handled, timeout=40)
        answer = await registry.client.get("/v1/adapters", params={"domain": domain})
        assert [one["version"] for one in answer.json()["adapters"]] == ["1.0.0"]
        assert not [reason for reason in await upstream.dead_reasons() if event.job_id in reason]


@pytest.mark.heavy
async def test_a_base_model_that_cannot_be_read_shows_in_readiness_and_its_trainings_wait_for_it(
    run_service: RunService, upstream: Upstream, base_model: Path, domain: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    models = {"LORAFLEET_BASE_MODEL": str(tmp_path / "empty"), "LORAFLEET_BASE_MODEL_NAME": base_model.name}
    async with run_service("registry", ready=False, **models) as registry:
        registry.single.process.start()

        async def unready() -> Any:
            with suppress(httpx.TransportError):
                checks = (await registry.client.get("/readyz")).json()["checks"]
                return [name for name, result in checks.items() if result != "ok"] == ["base_models"] and checks
            return None

        checks = await eventually(unready, timeout=60)
        assert checks["base_models"] == (
            f"base model '{base_model.name}' is unavailable: its folder lacks config.json or *.safetensors"
        )
        event = await upstream.trained(domain)
        await upstream.publish(event)

        async def waiting() -> bool:
            lines = registry.single.log.splitlines()
            return any(
                "event_deferred" in line and f"base model '{base_model.name}' is unavailable" in line for line in lines
            )

        await eventually(waiting)
        assert (await registry.client.get("/v1/refusals", params={"domain": domain})).json()["refusals"] == []
        await asyncio.to_thread(
            shutil.copytree, base_model, tmp_path / "empty", copy_function=os.symlink, dirs_exist_ok=True
        )

        async def registered() -> Any:
            return (await registry.client.get("/v1/adapters", params={"domain": domain})).json()["adapters"]

        await eventually(registered, timeout=60)
        assert (await registry.client.get("/readyz")).status_code == 200
