"""NATS, PostgreSQL and S3 each away for 20 s under way: the loop waits and goes on, readiness says so meanwhile."""

import asyncio

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
AWAY_SECONDS = 20


async def test_the_loop_outlasts_the_loss_of_each_server_in_turn(new_loop) -> None:
    async with new_loop("outage") as loop:
        await loop.request()

        async def training() -> bool:
            job = await loop.job()
            return job["state"] == "running" and job.get("step", 0) >= 1

        await loop.until(training, 180)
        for part, check in (("nats", "nats"), ("s3", "s3"), ("postgres", "database")):
            await asyncio.to_thread(loop.fleet.stop_part, part)
            readiness = await loop.http.get(loop.url("trainer", "/readyz"))
            assert readiness.status_code == 503
            assert readiness.json()["checks"][check] != "ok"
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(loop.fleet.start_part, part)

            async def ready() -> bool:
                return (await loop.http.get(loop.url("trainer", "/readyz"))).status_code == 200

            await loop.until(ready, 60)
        await loop.finished_once()
        assert await loop.dead_letters() == 0
