"""Clients that go away in the middle of anything: their rows, leases and slots are freed for others."""

import asyncio
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.inference.conftest import QUESTION, answered, chat, text_of

pytestmark = pytest.mark.integration

AT_ONCE = 8
LONG = 16_000
"""Tokens of an answer that nobody cancels: it runs for far longer than freed rows are waited for."""
PATIENCE = 15


@pytest.fixture(scope="module")
def long_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, but with answers of any length."""
    folder = tmp_path_factory.mktemp("models") / "long"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 2 * LONG}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def settings_of_inference(settings_of_inference: dict[str, str], long_model: Path) -> dict[str, str]:
    return settings_of_inference | {
        "LORAFLEET_BASE_MODEL": str(long_model),
        "LORAFLEET_FURTHER_BASE_MODELS": "{}",
        "LORAFLEET_MAX_COMPLETION_TOKENS": str(LONG),
        "LORAFLEET_BATCH_ROWS": "4",
        "LORAFLEET_SLOT_PATIENCE": "0.2",
    }


class Vanishing:
    """A client over a bare socket, which goes away at a moment of its choice."""

    def __init__(self, service: RunningService, random_: random.Random) -> None:
        self._service, self._random = service, random_
        self.moments: Counter[str] = Counter()

    async def ask(self, model: str) -> None:
        """One request that is not waited for."""
        body = json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": QUESTION}],
                "max_tokens": LONG,
                "ignore_eos": True,
                "temperature": self._random.choice([0, 1]),
                "stream": self._random.random() < 0.8,
            }
        ).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: inference\r\nContent-Type: application/json\r\n"
            f"Authorization: {self._service.client.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        where = urlsplit(self._service.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        moment = self._random.choice(["half a body", "at once", "after a while", "chunks", "chunks"])
        try:
            writer.write(head + (body[: len(body) // 2] if moment == "half a body" else body))
            await writer.drain()
            if moment == "after a while":
                await asyncio.sleep(self._random.uniform(0, 0.5))
            elif moment == "chunks":
                moment = await self._read(reader, self._random.randrange(1, 20))
        finally:
            if self._random.random() < 0.5:
                writer.transport.abort()  # a reset
            else:
                writer.close()
        self.moments[moment] += 1

    async def _read(self, reader: asyncio.StreamReader, chunks: int) -> str:
        """Reads so many chunks of a stream; a whole answer does not come that soon."""
        seen = 0
        try:
            async with asyncio.timeout(2):
                while seen < chunks and (got := await reader.read(4096)):
                    seen += got.count(b"data: ")
        except TimeoutError:
            return "while it waits"
        return "in the stream"


async def _held(service: RunningService) -> dict[str, int]:
    """What requests hold now."""
    shown = (await service.client.get("/admin/adapters")).json()
    return {
        "rows": shown["rows_running"],
        "requests": shown["requests_waiting"],
        "leases": sum(one.get("users", 0) for one in shown["adapters"].values()),
        "waits for slots": sum(one["waiting"] for one in shown["adapters"].values()),
    }


async def _wait_until_free(service: RunningService) -> None:
    until = time.monotonic() + PATIENCE
    while any((held := await _held(service)).values()):
        assert time.monotonic() < until, f"still held {PATIENCE} s after the last client went: {held}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("count", [24, pytest.param(300, marks=pytest.mark.heavy)])
async def test_streams_that_vanish_at_any_moment_leave_nothing_behind(
    inference: RunningService,
    registry: Any,
    make_adapter: Any,
    expected: Any,
    long_model: Path,
    domain: str,
    count: int,
) -> None:
    made = [make_adapter(seed=seed, base=long_model) for seed in (81, 82, 83)]  # for two slots
    adapters = [await registry.describe(one, f"{domain}{index}") for index, one in enumerate(made)]
    for adapter in adapters:
        await registry.activate(adapter)
        await answered(inference.client, adapter.family)
    families = [adapter.family for adapter in adapters]
    models = ["tiny", *families, f"{families[0]}:0.5+{families[1]}:0.5"]

    random_ = random.Random(10)
    clients = Vanishing(inference, random_)
    freed: Counter[str] = Counter()
    for _ in range(count // AT_ONCE):
        chats = [asyncio.create_task(clients.ask(random_.choice(models))) for _ in range(AT_ONCE)]
        while not all(task.done() for task in chats):
            for what, number in (await _held(inference)).items():
                freed[what] = max(freed[what], number)
            await asyncio.sleep(0.02)
        await asyncio.gather(*chats)

        await _wait_until_free(inference)
    print(f"{count} requests vanished: {dict(clients.moments)}; held at most: {dict(freed)}; held at the end: none")
    assert freed["rows"] > 0
    assert freed["leases"] > 0
    assert clients.moments["in the stream"] > 0

    # Every slot and row is there for others, whose answers are what they always were.
    got = await asyncio.gather(*(answered(inference.client, model) for model in ["tiny", *families]))
    assert [text_of(one) for one in got] == [expected(), *(expected(one) for one in made)]
    assert (await chat(inference.client, models[-1])).status_code == 200
    used = [
        one
        for one in (await inference.client.get("/admin/adapters")).json()["adapters"].values()
        if one["state"] == "loaded"
    ]
    assert len(used) <= 2

    async def completed() -> list[Any]:
        events = [one for one in await registry.published(v1.GenerationCompleted) if one.completion_tokens > 30]
        return [one for one in events if one.finish_reason != "cancelled"]

    assert await completed() == [], "an answer was computed to its end for nobody"
