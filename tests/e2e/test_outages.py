"""NATS, PostgreSQL and S3 each away for 20 s under way: the loop waits and goes on, readiness says so meanwhile."""

import asyncio

import httpx
import pytest

# Each service proves the same of itself in tests/integration/<service>/test_survival.py and the like.
pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
AWAY_SECONDS = 20


async def test_the_loop_outlasts_the_loss_of_each_server_in_turn(new_loop) -> None:
    async with new_loop("outage") as loop:

        async def readiness() -> httpx.Response:
            try:
                return await loop.http.get(loop.url("trainer", "/readyz"))
            except httpx.TransportError:  # it may take a loss as a reason to start again
                return httpx.Response(503, json={})

        await loop.request()

        async def training() -> bool:
            job = await loop.job()
            return job["state"] == "running" and job.get("step", 0) >= 1

        await loop.until(training, 180)
        for part, check in (("nats", "nats"), ("s3", "s3"), ("postgres", "database")):

            async def unready(check: str = check) -> bool:
                answer = await readiness()
                return answer.status_code == 503 and answer.json().get("checks", {check: "ok"})[check] != "ok"

            async def ready() -> bool:
                return (await readiness()).status_code == 200

            await asyncio.to_thread(loop.fleet.stop_part, part)
            try:
                await loop.until(unready, 30)
                await asyncio.sleep(AWAY_SECONDS)
            finally:  # other tests use these servers after this one
                await asyncio.to_thread(loop.fleet.start_part, part)
            await loop.until(ready, 60)
        await loop.finished_once()
        assert await loop.dead_letters() == 0
