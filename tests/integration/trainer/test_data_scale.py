"""A large upload becomes a data set without the service growing by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from tests.integration.trainer.conftest import Bench, eventually

pytestmark = [pytest.mark.integration, pytest.mark.heavy, pytest.mark.timeout(900)]

LINES = 200_000
MEBIBYTE = 1024 * 1024


def line(number: int) -> bytes:
    words = " ".join(f"word{number * step % 7919}" for step in range(1, 60))
    return (
        json.dumps({"prompt": f"Question {number}: {words}?", "completion": f"Answer {number}: {words}."}).encode()
        + b"\n"
    )


async def body() -> AsyncIterator[bytes]:
    for start in range(0, LINES, 500):
        yield b"".join(line(number) for number in range(start, start + 500))
        await asyncio.sleep(0)


@pytest.mark.requirement("LA-6.1")
async def test_two_hundred_thousand_lines_are_built_and_read_back_in_bounded_memory(bench: Bench) -> None:
    port = bench.trainer.url.rpartition(":")[2]
    service = next(
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if "services.trainer.app" in (process.info["cmdline"] or ())
        and (process.info["environ"] or {}).get("LORAFLEET_PORT") == port
    )
    # The first build loads what every build needs.
    await bench.record([{"domain": bench.domain, "prompt": "p", "completion": "c"}])
    await _built(bench, {"kind": "live"})
    before, highest, highest_child = service.memory_info().rss, 0, 0
    watching = True

    async def watch() -> None:
        nonlocal highest, highest_child
        while watching:
            highest = max(highest, service.memory_info().rss)
            for child in service.children():
                try:
                    highest_child = max(highest_child, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(watch())
    params = {"domain": bench.domain, "filename": "many.jsonl"}
    answer = await bench.trainer.client.put("/v1/uploads", params=params, content=body(), timeout=300)
    assert answer.status_code == 201, answer.text
    found = await _built(bench, {"kind": "upload", "upload_id": answer.json()["upload_id"]})
    read = 0
    async with bench.trainer.client.stream("GET", f"/v1/datasets/{found['dataset_id']}/records") as records:
        async for chunk in records.aiter_bytes():
            read += chunk.count(b"\n")
    watching = False
    await watcher
    assert read == LINES
    size = answer.json()["bytes"]
    print(f"{size / MEBIBYTE:.0f} MiB; service {before / MEBIBYTE:.0f} to {highest / MEBIBYTE:.0f} MiB; "
          f"build process {highest_child / MEBIBYTE:.0f} MiB")  # fmt: skip
    assert size > 150 * MEBIBYTE
    assert highest - before < 50 * MEBIBYTE
    assert highest_child < 900 * MEBIBYTE


async def _built(bench: Bench, source: dict[str, Any]) -> dict[str, Any]:
    recipe = {"domain": bench.domain, "name": "many", "sources": [source]}
    build_id = (await bench.trainer.client.post("/v1/datasets", json=recipe)).json()["build_id"]

    async def ended() -> Any:
        found = (await bench.trainer.client.get(f"/v1/datasets/builds/{build_id}")).json()
        return found if found["state"] in ("succeeded", "failed") else None

    found = await eventually(ended, timeout=600)
    assert found["state"] == "succeeded", found["faults"]
    return dict(found)
