"""The official client, and the store of batches as another replica sees it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest

from fleet_events.buckets import BATCHES
from fleet_kit.blobs import Blobs
from fleet_kit.key_value import KeyValue
from fleet_kit.settings import ServiceSettings
from services.inference.batches.store import BatchStore
from tests.conftest import Mint, RunningService
from tests.integration.inference.conftest import QUESTION, TOKENS, eventually

CHAT: Any = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": QUESTION}]


class _Settings(ServiceSettings):
    pass


@pytest.fixture(scope="module")
def settings_of_inference(settings_of_inference: dict[str, str]) -> dict[str, str]:
    """A small server, and a lease that ends soon."""
    return settings_of_inference | {
        "LORAFLEET_BATCH_LEASE_SECONDS": "1",
        "LORAFLEET_BATCH_FILE_BYTES": "100000",
        "LORAFLEET_BATCH_LINES": "500",
        "LORAFLEET_BATCH_FILES": "20",
        "LORAFLEET_BATCHES_PER_DOMAIN": "2",
        "LORAFLEET_BATCH_ROWS": "4",
        "LORAFLEET_BATCH_CONCURRENCY": "4",
    }


@pytest.fixture
async def clients(inference: RunningService, mint: Mint, domain: str) -> AsyncIterator[Any]:
    """`clients("ann")`: the official client with a token of this subject, in this test's domain alone."""
    async with AsyncExitStack() as opened:

        def client(subject: str, *domains: str) -> openai.AsyncOpenAI:
            token = mint(["generate"], domains or [domain], subject=f"{subject}-{domain}")
            made = openai.AsyncOpenAI(base_url=f"{inference.url}/v1", api_key=token, max_retries=0)
            opened.push_async_callback(made.close)
            return made

        yield client


@pytest.fixture
async def store(jetstream: Any, inference: RunningService) -> BatchStore:
    """Files and batches as another replica sees them."""
    names: dict[str, Any] = {name.removeprefix("LORAFLEET_").lower(): value for name, value in inference.env.items()}
    settings = _Settings(**{name: value for name, value in names.items() if name in ServiceSettings.model_fields})
    return BatchStore(KeyValue(jetstream, BATCHES), Blobs("inference", settings))


def line(custom_id: str, model: str = "tiny", **body: Any) -> dict[str, Any]:
    fields = {"model": model, "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0} | body
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": fields}


def content(*lines: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def begin(client: openai.AsyncOpenAI, *lines: Any, **fields: Any) -> Any:
    file = await client.files.create(file=("in.jsonl", content(*lines)), purpose="batch")
    return await client.batches.create(
        **{"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | fields
    )


async def at_end(client: openai.AsyncOpenAI, batch: Any) -> Any:
    async def end() -> Any:
        found = await client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed", "cancelled", "expired") else None

    return await eventually(end, 60)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """custom_id → line; each is there once."""
    if file_id is None:
        return {}
    read = [json.loads(one) for one in (await client.files.content(file_id)).text.splitlines()]
    found = {one["custom_id"]: one for one in read}
    assert len(found) == len(read)
    return found
