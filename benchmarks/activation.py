"""How long the backbone itself takes from a finished training to an answering adapter."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
from nats.js import JetStreamContext

from benchmarks.report import Row, Samples
from fleet_cli.stack import Fleet
from fleet_cli.stack.environment import service_environment
from fleet_events import v1
from fleet_events.message import Event
from fleet_events.topology import STREAMS
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import Stored, open_envelope, seal
from fleet_kit.settings import ServiceSettings
from lora_core.base_model import linear_shapes
from lora_core.card import LoRACard
from lora_core.format.arrow_format import LoRAFormat
from lora_core.interop import to_peft
from lora_core.weights import LoRAWeights

DOMAIN = "benchmark"
RANK = 8


@dataclass(frozen=True)
class Timeline:
    """Seconds; judging lies between registered and scored."""

    to_registered: float
    scored_to_answering: float

    @property
    def backbone(self) -> float:
        """What is left when judging is taken out."""
        return self.to_registered + self.scored_to_answering


def random_card(base_model: Path, seed: int) -> LoRACard:
    """An adapter of small random matrices on the attention's query and value projections."""
    generator = np.random.default_rng(seed)
    weights: dict[str, LoRAWeights] = {}
    for module, (outputs, inputs) in linear_shapes(base_model).items():
        if module.endswith(("q_proj", "v_proj")):
            a = generator.normal(0, 0.02, (RANK, inputs)).astype(np.float32)
            b = generator.normal(0, 0.02, (outputs, RANK)).astype(np.float32)
            weights[module] = LoRAWeights(a, b)
    return LoRACard(
        name=f"benchmark-{seed}",
        rank=RANK,
        alpha=16.0,
        target_modules=("q_proj", "v_proj"),
        weights=weights,
        metadata={},
    )


async def completed_event(blobs: Blobs, fleet: Fleet, seed: int) -> v1.TrainingCompleted:
    base = fleet.info.base_model
    if base is None:
        raise RuntimeError("the fleet has no base model")
    card = random_card(base.path, seed)
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "adapter.arrow"
        LoRAFormat.save(card, artifact)
        to_peft(card, Path(folder) / "peft")
        stored = await blobs.put("artifacts", artifact)
        checkpoint = await blobs.put("checkpoints", Path(folder) / "peft" / "adapter_model.safetensors")
        config = await blobs.put("checkpoints", Path(folder) / "peft" / "adapter_config.json")
    report = await blobs.put("reports", b"{}")
    data = await blobs.put("datasets", b'{"prompt": "p", "completion": "c"}\n')
    return v1.TrainingCompleted(
        job_id=f"benchmark-{seed}",
        domain=DOMAIN,
        method="lora",
        base_model=v1.BaseModel(name=base.name, revision=base.revision),
        dataset=v1.Dataset(dataset_id=data.sha256, blob=data, samples=1),
        configuration="{}",
        configuration_sha256="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        checkpoint=checkpoint,
        checkpoint_config=config,
        artifact=v1.Artifact(blob=stored, rank=RANK, alpha=16.0, target_modules=card.target_modules),
        report=report,
        description="random matrices",
    )


@asynccontextmanager
async def facts(jetstream: JetStreamContext) -> AsyncIterator["asyncio.Queue[tuple[Event, datetime]]"]:
    """New events of the stream with the time JetStream stored them."""
    queue: asyncio.Queue[tuple[Event, datetime]] = asyncio.Queue()
    subscriptions = [await jetstream.subscribe(">", stream=stream.name, ordered_consumer=True) for stream in STREAMS]

    async def read(subscription: JetStreamContext.PushSubscription) -> None:
        while True:
            message = await subscription.next_msg(timeout=600)
            event, _ = open_envelope(message.subject, message.headers, message.data, *Stored.of(message))
            queue.put_nowait((event, message.metadata.timestamp))

    reading = [asyncio.create_task(read(one)) for one in subscriptions]
    try:
        yield queue
    finally:
        for task in reading:
            task.cancel()


async def one_round(fleet: Fleet, client: httpx.AsyncClient, blobs: Blobs, seed: int) -> Timeline:
    event = await completed_event(blobs, fleet, seed)
    trainer = await fleet.connect_nats("trainer")
    admin = await fleet.connect_nats("admin")
    url = fleet.info.services["inference"].url
    try:
        async with facts(admin.jetstream()) as queue:
            outgoing = seal(event, service="trainer", entity=event.job_id, trace={})
            sent = time.time()
            await trainer.jetstream().publish(outgoing.subject, outgoing.body, headers=outgoing.headers)
            registered = scored = 0.0
            adapter_id = ""
            while not scored:
                fact, stamp = await asyncio.wait_for(queue.get(), 120)
                match fact:
                    case v1.AdapterRegistered() if fact.job_id == event.job_id:
                        registered, adapter_id = stamp.timestamp(), fact.adapter.adapter_id
                    case v1.EvaluationScored() if fact.adapter_id == adapter_id:
                        scored = stamp.timestamp()
                    case v1.EvaluationFailed() if fact.adapter_id == adapter_id:
                        raise RuntimeError(f"evaluation failed: {fact.reason}")
            body = {"model": adapter_id, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            while True:
                answer = await client.post(f"{url}/v1/chat/completions", json=body)
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.02)
            answering = time.time()
            if answer.json()["lorafleet"]["artifact_sha256"] != event.artifact.blob.sha256:
                raise RuntimeError("another artifact answered")
        return Timeline(registered - sent, answering - scored)
    finally:
        await trainer.close()
        await admin.close()


async def completed_to_answering(fleet: Fleet, *, rounds: int) -> Row:
    """TrainingCompleted → first token from the adapter, judging taken out."""
    env = service_environment("trainer", fleet.home, fleet.ports, fleet.credentials, fleet.info.embedding_model)
    values = {key.removeprefix("LORAFLEET_").lower(): value for key, value in env.items()}
    blobs = Blobs("trainer", ServiceSettings.model_validate(values))
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        await prepare(fleet, client)
        times = [await one_round(fleet, client, blobs, seed) for seed in range(rounds)]
    samples = Samples(tuple(each.backbone for each in times))
    return Row(
        what="TrainingCompleted → adapter answering, judging taken out",
        unit="s",
        ours=samples.median,
        ask="under 2",
        met=samples.median < 2,
        n=rounds,
        spread=samples.spread,
        note="of it until registered: " + ", ".join(f"{each.to_registered:.2f}" for each in times) + " s",
    )


async def prepare(fleet: Fleet, client: httpx.AsyncClient) -> None:
    """A policy that approves any score, and one golden sample."""
    services = fleet.info.services
    policy_url = f"{services['registry'].url}/v1/policies/{DOMAIN}"
    policy = (await client.get(policy_url)).raise_for_status().json()
    policy |= {"mode": "simple", "approve_at": 0, "reject_below": 0}
    (await client.put(policy_url, json=policy)).raise_for_status()
    golden = f"{services['evaluator'].url}/v1/golden"
    wanted = {"dataset_id": "benchmark-golden", "domain": DOMAIN, "version": "1.0.0", "description": "one sample"}
    (await client.post(golden, json=wanted)).raise_for_status()
    sample = {"sample_id": "g1", "prompt": "Hello", "expected_output": "Hello there.", "difficulty": "easy"}
    settled = {"criteria": {"accuracy": "Must equal Hello there."}}  # settles any answer
    (await client.post(f"{golden}/benchmark-golden/samples", content=json.dumps(sample | settled))).raise_for_status()
