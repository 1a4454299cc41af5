"""A registry on real servers, and a trainer's hand: checkpoints made without torch, published as the trainer does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nats.js import JetStreamContext

from fleet_events import Event, v1
from fleet_events.topology import STREAMS, row_of
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import seal
from fleet_kit.dead_letters import list_dead
from fleet_kit.settings import ServiceSettings
from lora_core import LoRACard, LoRAFormat, LoRAWeights
from lora_core import base_model as base
from lora_core.interop import to_peft
from tests.conftest import RunningService, RunService, ServiceEnv


class _TrainerSettings(ServiceSettings):
    pass


def card(
    shapes: dict[str, tuple[int, int]], rank: int = 4, seed: int = 0, alpha: float = 8.0, scale: float = 1.0
) -> LoRACard:
    """A small adapter on every q_proj, with random numbers."""
    rng = np.random.default_rng(seed)
    weights = {
        module: LoRAWeights(
            scale * rng.standard_normal((rank, inside), dtype=np.float32),
            rng.standard_normal((outside, rank), dtype=np.float32),
        )
        for module, (outside, inside) in shapes.items()
        if module.endswith("q_proj")
    }
    return LoRACard("test", rank, alpha, ("q_proj",), weights)


async def eventually(check: Callable[[], Awaitable[Any]], timeout: float = 20.0) -> Any:
    """Ask until the answer is true; returns it. Fails with the last answer."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not (found := await check()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout} s: {found!r}")
        await asyncio.sleep(0.05)
    return found


@dataclass
class Upstream:
    """Says events as their services do, and reads what the registry says."""

    jetstream: JetStreamContext
    blobs: Blobs
    shapes: dict[str, tuple[int, int]]
    revision: str
    folder: Path
    base_name: str

    async def publish(self, event: Event, *, id: str | None = None, at: datetime | None = None) -> str:
        out = seal(event, service=row_of(type(event)).published_by[0], entity="test", trace={}, id=id)
        headers = dict(out.headers)
        if at is not None:
            headers["ce-time"] = at.isoformat()
        if id is not None:
            headers["Nats-Msg-Id"] = secrets.token_hex(8)  # the stream must not hide a repetition from the inbox
        await self.jetstream.publish(out.subject, out.body, headers=headers)
        return out.id

    async def trained(self, domain: str, *, seed: int = 0, scale: float = 1.0, **changes: Any) -> v1.TrainingCompleted:
        """A TrainingCompleted with its files in the object store."""
        work = self.folder / secrets.token_hex(4)
        made = card(self.shapes, seed=seed, scale=scale)
        to_peft(made, work)
        LoRAFormat.save(made, work / "artifact")
        configuration = json.dumps({"rank": 4, "learning_rate": 0.0002}, sort_keys=True)
        job = changes.pop("job_id", f"job-{secrets.token_hex(4)}")
        report = {"train_loss": 0.42, "seconds": 61.5, "hyperparameters": {"rank": 4}}
        event = v1.TrainingCompleted(
            job_id=job,
            domain=domain,
            method="lora",
            base_model=v1.BaseModel(name=self.base_name, revision=self.revision),
            dataset=v1.Dataset(
                dataset_id=f"ds-{domain}", blob=await self.blobs.put("datasets", b'{"prompt":"p"}\n'), samples=1
            ),
            configuration=configuration,
            configuration_sha256=hashlib.sha256(configuration.encode()).hexdigest(),
            checkpoint=await self.blobs.put("checkpoints", work / "adapter_model.safetensors"),
            checkpoint_config=await self.blobs.put("checkpoints", work / "adapter_config.json"),
            artifact=v1.Artifact(
                blob=await self.blobs.put("artifacts", work / "artifact"),
                rank=4,
                alpha=8.0,
                target_modules=("q_proj",),
            ),
            report=await self.blobs.put("reports", json.dumps(report).encode()),
            metrics={"train_loss": 0.42, "seconds": 61.5},
            description="knows the tests",
            example_prompts=("What is tested?",),
            requested_by="anna",
            finished_at=datetime.now(UTC),
        )
        return event.model_copy(update=changes)

    def scored(
        self, adapter: dict[str, Any], score: float, *, against: str = "", **changes: Any
    ) -> v1.EvaluationScored:
        """A score; `against` is the version that it was compared with, as equals."""
        event = v1.EvaluationScored(
            evaluation_id=f"ev-{secrets.token_hex(4)}",
            adapter_id=adapter["adapter_id"],
            domain=adapter["domain"],
            artifact_sha256=adapter["artifact_sha256"],
            golden_dataset_id="golden-v1",
            golden_sha256=hashlib.sha256(b"golden").hexdigest(),
            judge="reference-judge/1",
            score=score,
            ci_low=max(0.0, score - 3),
            ci_high=min(100.0, score + 3),
            confidence=0.95,
            pass_rate=0.9,
            pass_threshold=70,
            samples=40,
            passed=36,
            criteria={"accuracy": 9.0},
            report=v1.Blob(uri="s3://lorafleet/evaluator/reports/x", sha256=hashlib.sha256(b"r").hexdigest(), bytes=1),
        )
        if against:
            equal = v1.Comparison(compared_with=against, evaluation_id="ev-old", samples=40, ci_low=-2, ci_high=2)
            changes["comparison"] = equal
        return event.model_copy(update=changes)

    async def published(self, *kinds: type[Event], domain: str) -> list[Event]:
        """What the stream holds of these events about a domain, in order."""
        return [
            event
            for stream in STREAMS
            for event in await self._all(stream.name)
            if isinstance(event, kinds) and domain in (getattr(event, "domain", ""), _card_domain(event))
        ]

    async def _all(self, stream: str) -> list[Event]:
        from fleet_events.decode import decode_event

        found = []
        for sequence in range(1, (await self.jetstream.stream_info(stream)).state.last_seq + 1):
            message = await self.jetstream.get_msg(stream, sequence)
            headers = {name.lower(): value for name, value in (message.headers or {}).items()}
            if "ce-type" in headers:
                found.append(decode_event(headers["ce-type"], headers["content-type"], message.data or b""))
        return found

    async def dead_reasons(self) -> list[str]:
        """Reasons of everything in the dead letters."""
        return [letter.reason async for letter in list_dead(self.jetstream)]


def _card_domain(event: Event) -> str:
    adapter = getattr(event, "adapter", None)
    return adapter.domain if adapter is not None else ""


@pytest.fixture(scope="module")
async def registry(run_service: RunService, base_model: Path) -> AsyncIterator[RunningService]:
    settings = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_ROLLOUT_LOOK_SECONDS": "1"}
    async with run_service("registry", **settings) as running:
        yield running


@pytest.fixture
async def upstream(jetstream: JetStreamContext, service_env: ServiceEnv, base_model: Path, tmp_path: Path) -> Upstream:
    env = service_env("trainer")
    settings = _TrainerSettings(
        **{  # type: ignore[arg-type]
            name: env[f"LORAFLEET_{name.upper()}"]
            for name in ("port", "nats_url", "s3_endpoint", "s3_access_key", "s3_secret_key", "s3_bucket", "jwks")
        }
    )
    return Upstream(
        jetstream,
        Blobs("trainer", settings),
        base.linear_shapes(base_model),
        await asyncio.to_thread(base.revision, base_model),
        tmp_path,
        base_model.name,
    )


@pytest.fixture
def domain() -> str:
    """A domain of this test's own."""
    return f"d-{secrets.token_hex(4)}"


UNJUDGED = {"without_evaluation": True, "reason": "no golden data set yet"}
"""Body of an approval of a version that has no score."""


async def permit_unjudged(registry: RunningService, domain: str, **policy: object) -> None:
    """Have a domain's policy permit approvals without an evaluation."""
    body = {"allow_approval_without_evaluation": True, **policy}
    answer = await registry.client.put(f"/v1/policies/{domain}", json=body)
    assert answer.status_code == 200, answer.text


Get = Callable[[str], Awaitable[Any]]


@pytest.fixture
def adapters(registry: RunningService) -> Get:
    """`await adapters(domain)`: the versions of a domain, as the registry lists them."""

    async def listed(domain: str) -> Any:
        answer = await registry.client.get("/v1/adapters", params={"domain": domain})
        assert answer.status_code == 200, answer.text
        return answer.json()["adapters"]

    return listed


@pytest.fixture
def peft(upstream: Upstream, tmp_path: Path) -> Path:
    """A PEFT folder that serves."""
    to_peft(card(upstream.shapes), tmp_path / "peft")
    return tmp_path / "peft"
