"""An evaluator on real servers, with a model server of the test's own, and a registry's hand."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
from nats.js import JetStreamContext

from fleet_events import Event, v1
from fleet_events.topology import durable_name, row_of
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import seal
from fleet_kit.settings import ServiceSettings
from tests.conftest import RunningService, RunService, ServiceEnv
from tests.integration.evaluator.model_server import ModelServer, serving

BASE = "SmolLM2-135M-Instruct"


async def eventually(check: Callable[[], Awaitable[Any]], timeout: float = 60.0) -> Any:
    """Ask until the answer is true; returns it. Fails with the last answer."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not (found := await check()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout} s: {found!r}")
        await asyncio.sleep(0.1)
    return found


@dataclass
class Bus:
    """Says events as their services do, and reads what the evaluator says."""

    jetstream: JetStreamContext

    async def publish(self, event: Event, by: str, entity: str, *, times: int = 1) -> str:
        """Publish; `times` deliveries of the same event, past the stream's own deduplication."""
        outgoing = seal(event, service=by, entity=entity, trace={})
        for turn in range(times):
            headers = dict(outgoing.headers)
            headers["Nats-Msg-Id"] = f"{outgoing.id}-{turn}"
            await self.jetstream.publish(outgoing.subject, outgoing.body, headers=headers, timeout=5)
        return outgoing.id

    async def published(self, event: type[Event], **fields: str) -> list[Any]:
        """Every event of that kind in the stream with these field values, oldest first."""
        found, sequence = [], 0
        subject = row_of(event).subject
        while True:
            try:
                raw = await self.jetstream.get_msg(row_of(event).stream.name, sequence + 1, subject=subject, next=True)
            except Exception as error:
                if "not found" not in str(error).lower() and "no message" not in str(error).lower():
                    raise
                return [one for one in found if all(getattr(one, name) == value for name, value in fields.items())]
            sequence = raw.seq or sequence + 1
            found.append(event.from_json(raw.data or b"{}"))


def adapter(domain: str, version: str = "1.0.0", sha256: str = "") -> v1.Adapter:
    """A version as registry describes it."""
    digest = sha256 or secrets.token_hex(32)
    return v1.Adapter(
        adapter_id=f"{domain}-lora-v{version}",
        family=f"{domain}-lora",
        domain=domain,
        method="lora",
        version=version,
        base_model=v1.BaseModel(name=BASE, revision="0" * 64),
        artifact=v1.Artifact(
            blob=v1.Blob(uri=f"s3://lorafleet/trainer/artifacts/{digest}", sha256=digest, bytes=1), rank=8, alpha=16.0
        ),
    )


def sample(number: int, **changes: Any) -> dict[str, Any]:
    """A golden sample whose right answer is a number of its own."""
    return {
        "sample_id": f"s{number:03}",
        "prompt": f"How many crates fit into store {number}?",
        "expected_output": f"Store {number} takes {number * 7 + 100} crates of the Velmar kind.",
        "criteria": {"accuracy": f"Must mention {number * 7 + 100} crates"},
        "difficulty": ("easy", "medium", "hard")[number % 3],
        **changes,
    }


@dataclass
class Golden:
    """Makes golden data sets over HTTP."""

    client: httpx.AsyncClient

    async def make(self, dataset_id: str, domain: str, samples: list[dict[str, Any]]) -> None:
        made = await self.client.post("/v1/golden", json={"dataset_id": dataset_id, "domain": domain})
        assert made.status_code in {200, 201}, made.text
        sent = await self.send(dataset_id, samples)
        assert sent.status_code == 200, sent.text

    async def send(self, dataset_id: str, samples: list[dict[str, Any]], **query: Any) -> httpx.Response:
        body = "\n".join(json.dumps(one) for one in samples)
        return await self.client.post(
            f"/v1/golden/{dataset_id}/samples",
            content=body,
            params=query,
            headers={"Content-Type": "application/x-ndjson"},
        )


async def activated(bus: Bus, evaluator: RunningService, who: v1.Adapter, revision: int) -> None:
    """Registry publishes that the version is active, and the evaluator has consumed it."""
    await bus.publish(v1.AdapterActivated(adapter=who, revision=revision), "registry", who.adapter_id)
    connection = await asyncpg.connect(
        evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:
        await eventually(
            lambda: connection.fetchval(
                "select true from active_adapter where adapter_id = $1 and revision = $2", who.adapter_id, revision
            )
        )
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def models(token_of: Callable[[str], str]) -> Iterator[ModelServer]:
    with serving(ModelServer(BASE, token=token_of("evaluator"))) as server:
        yield server


@pytest.fixture(scope="module")
async def evaluator(run_service: RunService, models: ModelServer) -> AsyncIterator[RunningService]:
    async with run_service(
        "evaluator",
        LORAFLEET_INFERENCE_URL=models.url,
        LORAFLEET_LEASE_SECONDS="2",
        LORAFLEET_READY_SECONDS="6",
        LORAFLEET_RETRY_SECONDS="0.3",
    ) as running:
        yield running


@pytest.fixture
def bus(jetstream: JetStreamContext) -> Bus:
    return Bus(jetstream)


@pytest.fixture
def golden(evaluator: RunningService) -> Golden:
    return Golden(evaluator.client)


@pytest.fixture
def domain() -> str:
    """A domain that no other test uses."""
    return f"d{secrets.token_hex(5)}"


@pytest.fixture(scope="module")
def blobs(service_env: ServiceEnv) -> Blobs:
    env = service_env("evaluator")
    settings = ServiceSettings(
        **{name.removeprefix("LORAFLEET_").lower(): value for name, value in env.items() if "LORAFLEET_" in name}
    )
    return Blobs("evaluator", settings)


def teach(models: ModelServer, who: v1.Adapter, samples: list[dict[str, Any]], wrong: int = 0) -> None:
    """The model server knows the adapter; it answers right but for the last `wrong` samples."""
    models.adapters[who.adapter_id] = who.artifact.blob.sha256
    for place, one in enumerate(samples):
        right = place < len(samples) - wrong
        text = one["expected_output"] if right else "The store takes 12 crates in all."
        models.answers[who.adapter_id, one["prompt"]] = text


async def outcome(bus: Bus, adapter_id: str) -> v1.EvaluationScored | v1.EvaluationFailed:
    async def over() -> list[Any]:
        scored = await bus.published(v1.EvaluationScored, adapter_id=adapter_id)
        return scored or await bus.published(v1.EvaluationFailed, adapter_id=adapter_id)

    found: v1.EvaluationScored | v1.EvaluationFailed = (await eventually(over))[0]
    return found


async def consumed(bus: Bus, event: type[Event]) -> None:
    """The evaluator has acknowledged every event of that kind."""
    row = row_of(event)
    (consumer,) = [one for one in row.consumed_by if one.service == "evaluator"]

    async def idle() -> bool:
        info = await bus.jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
        return info.num_pending == 0 and info.num_ack_pending == 0

    await eventually(idle)
