"""A trainer on real servers with a tiny random-weight base model, and an upstream system."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from fleet_events import Event, v1
from fleet_events.decode import decode_event
from fleet_events.topology import DEAD_STREAM, row_of
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import seal
from fleet_kit.settings import ServiceSettings
from services.trainer.datasets import records
from services.trainer.datasets.records import Record
from tests.conftest import RunningService, RunService

E = TypeVar("E", bound=Event)

SHORT = {
    "rank": 4,
    "learningRate": 0.01,
    "batchSize": 4,
    "epochs": 2,
    "checkpointSteps": 3,
    "dropout": 0.1,
    "seed": 7,
}
"""Hyperparameters of a job that takes seconds: two epochs, 6 steps each for 24 samples."""


async def eventually(check: Callable[[], Awaitable[Any]], timeout: float = 90.0) -> Any:
    """Ask until the answer is true; returns it. Fails with the last answer."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not (found := await check()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout} s: {found!r}")
        await asyncio.sleep(0.1)
    return found


def pairs(domain: str, count: int = 24) -> list[dict[str, Any]]:
    """Samples of uneven length."""
    return [
        {
            "domain": domain,
            "prompt": f"Which word opens gate {index}?",
            "completion": f"Gate {index} opens to the word {['lantern', 'quill', 'umbra', 'vesper'][index % 4]}"
            + " at dusk" * (index % 5)
            + ".",
        }
        for index in range(count)
    ]


@dataclass
class Upstream:
    """Publishes as an upstream system does, and reads what the stream holds."""

    jetstream: JetStreamContext

    async def publish(self, event: Event, *, id: str | None = None) -> str:
        """Publish; a given id is published again past the stream's own deduplication."""
        out = seal(event, service=row_of(type(event)).published_by[0], entity="test", trace={}, id=id)
        headers = dict(out.headers) | {"Nats-Msg-Id": secrets.token_hex(8)}
        await self.jetstream.publish(out.subject, out.body, headers=headers)
        return out.id

    async def published(self, kind: type[E], job_id: str) -> list[E]:
        """What the stream holds of one event about a job, in order."""
        # Decoded are those of this event alone: tests publish broken ones of others.
        events = [
            kind.from_json(one.data)
            for one in await self._messages(row_of(kind).stream.name)
            if one.subject == row_of(kind).subject
        ]
        return [one for one in events if one.job_id == job_id]  # type: ignore[attr-defined]

    async def dead(self) -> list[str]:
        """Reasons of the dead letters."""
        return [message.headers["Lorafleet-Reason"] for message in await self._messages(DEAD_STREAM)]

    async def all(self, stream: str) -> list[Event]:
        return [
            decode_event(message.headers["ce-type"], message.headers["content-type"], message.data)
            for message in await self._messages(stream)
        ]

    async def _messages(self, stream: str) -> list[Any]:
        found = []
        for sequence in range(1, (await self.jetstream.stream_info(stream)).state.last_seq + 1):
            try:
                found.append(await self.jetstream.get_msg(stream, sequence))
            except NotFoundError:
                continue  # it was kept for a while only
        return found


@dataclass
class Bench:
    """A trainer, its upstream system, and a domain of this test's own."""

    trainer: RunningService
    upstream: Upstream
    blobs: Blobs
    domain: str

    async def record(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        body = "".join(json.dumps(line) + "\n" for line in lines)
        answer = await self.trainer.client.post("/v1/samples", content=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def submit(self, **request: Any) -> str:
        answer = await self.trainer.client.post("/v1/jobs", json=self.request(**request))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def request(self, **changes: Any) -> dict[str, Any]:
        return {"domain": self.domain, "hyperparameters": SHORT, **changes}

    async def records(self, dataset: v1.Dataset) -> list[Record]:
        """The records of a frozen data set, in its order."""
        with tempfile.TemporaryDirectory() as folder:
            return list(records.read(await self.blobs.fetch(dataset.blob, Path(folder) / "data.parquet")))

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.trainer.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def metrics(self, job_id: str) -> list[dict[str, Any]]:
        return list((await self.trainer.client.get(f"/v1/jobs/{job_id}/metrics")).json()["metrics"])

    async def until(self, job_id: str, *states: str, timeout: float = 240.0) -> dict[str, Any]:
        async def check() -> Any:
            answer = await self.trainer.client.get(f"/v1/jobs/{job_id}")
            if answer.status_code != 200:
                return None
            found = answer.json()
            assert found["state"] in states or found["state"] in ("queued", "running", "paused"), found
            return found if found["state"] in states else None

        return dict(await eventually(check, timeout))

    async def until_step(self, job_id: str, step: int, timeout: float = 150.0) -> None:
        async def check() -> bool:
            logged = await self.metrics(job_id)
            return bool(logged and logged[-1]["step"] >= step)

        await eventually(check, timeout)

    async def completed(self, job_id: str) -> v1.TrainingCompleted:
        """The one TrainingCompleted of a job."""
        (event,) = await eventually(lambda: self.upstream.published(v1.TrainingCompleted, job_id))
        return event  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def tiny_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and the real tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base_model / name, folder)
    return folder


@pytest.fixture(scope="module")
def trainer_settings() -> dict[str, str]:
    """Variables of the module's trainer beside its model; a module that needs others overrides this."""
    return {"LORAFLEET_FLUSH_SECONDS": "0.1", "LORAFLEET_PROGRESS_SECONDS": "0.5", "LORAFLEET_LEASE_SECONDS": "4"}


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService,
    tiny_model: Path,
    trainer_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningService]:
    """A trainer of the tiny model. One for a module: starting it takes a second, its first job most of ten."""
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_BASE_MODEL_NAME="tiny-llama",
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("trainer")),
        LORAFLEET_THREADS="1",
        **trainer_settings,
    ) as running:
        yield running


@pytest.fixture
def bench(trainer: RunningService, jetstream: JetStreamContext) -> Bench:
    """The trainer with a domain of this test's own."""

    class _Settings(ServiceSettings):
        pass

    values = {name.removeprefix("LORAFLEET_").lower(): value for name, value in trainer.env.items()}
    blobs = Blobs("trainer", _Settings.model_validate(values))
    return Bench(trainer, Upstream(jetstream), blobs, f"d{secrets.token_hex(4)}")
