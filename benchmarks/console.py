"""What the console costs beside a registry of 10,000 versions: `python -m benchmarks.console [--quick] [--json FILE]`.

Time of a page, and with LORAFLEET_CONSOLE_TESTS (see `make test-console`) until Chromium paints it; weight of a page
with all it brings; idle memory; what 200 viewers of the live page take and whether each gets every event.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]
from nats.js import JetStreamContext

from benchmarks.activation import random_card
from benchmarks.report import Row, Samples, emit, options
from fleet_cli.stack import Fleet, prepare_base_model
from fleet_cli.stack.home import Home, default_home
from fleet_cli.stack.postgres import postgres_url
from fleet_events import v1
from fleet_events.topology import row_of
from fleet_kit.cloudevents import seal
from lora_core.interop import to_peft

PAGES = (
    "/console/",
    "/console/?sort=score&offset=1000",
    "/console/?text=domain-77",
    "/console/review",
    "/console/live",
)
DOMAIN = "benchmark"
DRIVER = """
import json, os, sys
from playwright.sync_api import sync_playwright
base, token = os.environ["BASE_URL"], os.environ["TOKEN"]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
    page = browser.new_page()
    page.goto(f"{base}/console/sign-in#token={token}")
    page.wait_for_url(f"{base}/console/")
    found = []
    for _ in range(int(os.environ["ROUNDS"])):
        page.goto(base + os.environ["PAGE"])
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        while (value := page.evaluate(paint)) is None:
            pass
        found.append(value)
    print(json.dumps(found))
"""


async def fill(fleet: Fleet, versions: int, work: Path) -> None:
    """One real version, and copies of its row: five versions a family, one active and one waiting."""
    to_peft(random_card(prepare_base_model(Home(default_home()).models).path, 0), work / "peft")
    files = [("files", (file.name, file.read_bytes())) for file in sorted((work / "peft").iterdir())]
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    url = fleet.info.services["registry"].url
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        (await client.post("/v1/adapters", data={"domain": DOMAIN}, files=files)).raise_for_status()
    password = fleet.credentials.postgres["registry"]
    connection = await asyncpg.connect(postgres_url("registry", password, fleet.ports["postgres"]))
    try:
        columns = [row["column_name"] for row in await connection.fetch(_COLUMNS)]
        values = {
            "adapter_id": "'domain-' || n || '-lora-v1.0.' || v",
            "family_id": "'domain-' || n || '-lora'",
            "domain": "'domain-' || n",
            "patch": "v",
            "status": "case when v = 4 then 'pending_review' else 'approved' end",
            "active": "v = 3",
        }
        chosen = ", ".join(values.get(column, f"model.{column}") for column in columns)
        series = "generate_series(1, $1::integer) n"
        await connection.execute(
            f"insert into family select (jsonb_populate_record(model, jsonb_build_object('family_id', "
            f"'domain-' || n || '-lora', 'domain', 'domain-' || n))).* from family model, {series}",
            versions // 5,
        )
        await connection.execute(
            f"insert into adapter ({', '.join(columns)}) select {chosen} "
            f"from adapter model, {series}, generate_series(0, 4) v",
            versions // 5,
        )
        await connection.execute("analyze")
    finally:
        await connection.close()


_COLUMNS = """
select column_name from information_schema.columns
where table_name = 'adapter' and column_name <> 'position' order by ordinal_position
"""


async def pages(fleet: Fleet, rounds: int) -> list[Row]:
    """Seconds of each page on the server's side, and how much all that it brings weighs."""
    rows, url = [], fleet.info.services["console"].url
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        for path in PAGES:
            found = []
            for _ in range(rounds):
                began = time.perf_counter()
                answer = await client.get(path)
                answer.raise_for_status()
                found.append(1000 * (time.perf_counter() - began))
            samples = Samples(tuple(found))
            rows.append(Row(f"{path}: answer", "ms", samples.median, n=rounds, spread=samples.spread))
        page = await client.get("/console/")
        brought = set(re.findall(r'(?:href|src)="(/console/assets/[^"]+)"', page.text))
        weight = len(page.content) + sum([len((await client.get(path)).content) for path in brought])
        rows.append(Row("page weight, fleet", "KB", weight / 1000, ask="< 300", met=weight < 300_000))
    return rows


def paints(fleet: Fleet, environment: Path, chromium: str, rounds: int) -> list[Row]:
    """Milliseconds until the first content of each page."""
    rows = []
    for path in PAGES:
        variables = {
            "BASE_URL": fleet.info.services["console"].url,
            "TOKEN": fleet.info.token("admin"),
            "CHROMIUM": chromium,
            "PAGE": path,
            "ROUNDS": str(rounds),
        }
        done = subprocess.run(
            [str(environment / "bin" / "python"), "-c", DRIVER],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        samples = Samples(tuple(float(one) for one in done.stdout.strip("[]\n ").split(",")))
        rows.append(
            Row(
                f"{path}: first contentful paint",
                "ms",
                samples.median,
                ask="< 500",
                met=samples.median < 500,
                n=rounds,
                spread=samples.spread,
            )
        )
    return rows


async def viewers(fleet: Fleet, process: psutil.Process, count: int, events: int) -> list[Row]:
    """Share of a core while viewers follow events at 20 a second, and events that a viewer did not get."""
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    limits = httpx.Limits(max_connections=count + 10)
    url = fleet.info.services["console"].url
    got = [0] * count
    ready = asyncio.Semaphore(0)
    client = await fleet.connect_nats("admin")
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits) as http:

        async def view(number: int) -> None:
            query = {"type": "Rejected"}
            async with http.stream("GET", "/console/live/events", params=query) as answer:
                ready.release()
                async for line in answer.aiter_lines():
                    got[number] += line == "event: row"
                    if got[number] == events:
                        return

        watching = [asyncio.create_task(view(number)) for number in range(count)]
        for _ in watching:
            await ready.acquire()
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        await _publish(client.jetstream(), events)
        _, left = await asyncio.wait(watching, timeout=30)
        used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        for task in left:
            task.cancel()
    await client.close()
    missed = sum(events - one for one in got)
    return [
        Row(f"{count} viewers of the live page", "cores", used, ask="< 1", met=used < 1, note="20 events a second"),
        Row("events that a viewer did not get", "of all", missed, ask="0", met=missed == 0, n=events * count),
    ]


async def _publish(jetstream: JetStreamContext, events: int) -> None:
    for number in range(events):
        event = v1.Rejected(
            adapter_id=f"a-{number}", family=f"{DOMAIN}-lora", domain=DOMAIN, by="benchmark", reason="r"
        )
        out = seal(event, service="registry", entity=event.adapter_id, trace={})
        await jetstream.publish(row_of(v1.Rejected).subject, out.body, headers=out.headers)
        await asyncio.sleep(0.05)


def main(arguments: list[str] | None = None) -> int:
    """All of it on a fleet of registry and console."""
    chosen = options((__doc__ or "").partition("\n")[0], arguments)
    rounds = 3 if chosen.quick else 20
    environment = Path(os.environ.get("LORAFLEET_CONSOLE_TESTS", ".venv-console"))
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder) / "home") as fleet:
        fleet.start(["registry", "console"])
        asyncio.run(fill(fleet, 500 if chosen.quick else 10_000, Path(folder)))
        process = psutil.Process(fleet.part("console").pid)
        pss = process.memory_full_info().pss / 2**20
        rows = [Row("idle memory (PSS)", "MiB", pss, ask="< 120", met=pss < 120)]
        rows += asyncio.run(pages(fleet, rounds))
        if chromium and (environment / ".ready").exists():
            rows += paints(fleet, environment, chromium, rounds)
        rows += asyncio.run(viewers(fleet, process, 20 if chosen.quick else 200, 20 if chosen.quick else 200))
    emit(rows, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
