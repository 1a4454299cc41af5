"""What tests of retraining need: a domain with rules, an active version as if it had been trained here, its job's end."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from fleet_cli.stack.process import Command, Supervised
from fleet_events import v1
from fleet_kit import db
from lora_core import base_model
from lora_core.embedding import SentenceEmbedder, embedding_identity
from lora_core.routing_profile import RoutingProfile
from services.trainer.jobs import domain as jobs
from services.trainer.jobs import store
from services.trainer.training.configuration import resolve
from tests.conftest import RunningService, RunService
from tests.integration.trainer.conftest import Bench, eventually

PLACES = ("Halden", "Skerry", "Tern Point", "Gull Rock", "Kelp Bay", "Seal Sound", "Brack", "Holm", "Ness", "Orm")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "a holiday")
BAKING = tuple(
    f"How do I bake {bread} bread with {flour}?"
    for bread in ("rye", "corn", "flat", "soda")
    for flour in ("spelt", "oat", "malt", "bran")
)
QUICK = {"rank": 4, "maxSteps": 2, "batchSize": 4}


def rated(domain: str, count: int, rating: float, topic: str = "gate") -> list[dict[str, Any]]:
    return [
        {"domain": domain, "prompt": f"Which {topic} is {n}?", "completion": f"{topic} {n}.", "rating": rating}
        for n in range(count)
    ]


async def harbour(bench: Bench, embedding_model: Path, folder: Path) -> tuple[v1.RoutingProfile, list[str]]:
    """Vectors of 60 prompts about a harbour as a training leaves them, and 20 more such prompts."""
    prompts = [f"When does the ferry to {place} leave on {day}?" for place in PLACES for day in DAYS]
    random.Random(1).shuffle(prompts)
    RoutingProfile.of(SentenceEmbedder(embedding_model).embed(prompts[:60])).save(folder / "routing")
    blob = await bench.blobs.put("routing", folder / "routing")
    made_by = embedding_identity(embedding_model)
    return v1.RoutingProfile(blob=blob, embedded_by=made_by, prompts=60), prompts[60:]


@asynccontextmanager
async def run_pretended(run_service: RunService, model: Path, folder: Path) -> AsyncIterator[RunningService]:
    """A trainer that evaluates rules several times a second and whose trainings are pretended: each fails at once."""
    async with run_service(
        "trainer",
        ready=False,
        LORAFLEET_BASE_MODEL=str(model),
        LORAFLEET_BASE_MODEL_NAME="tiny-llama",
        LORAFLEET_CACHE_DIR=str(folder),
        LORAFLEET_RETRAINING_SECONDS="0.2",
        LORAFLEET_LEASE_SECONDS="3",
        PRETENDED_FOLDER=str(folder),
        PRETENDED_SECONDS="0.05",
    ) as running:
        single = running.single
        command = Command((sys.executable, "-m", "tests.integration.trainer.pretended_trainer"), environment=single.env)
        first = single.process
        single.process = Supervised(first.name, command, logs=first.log.parent, run=first._pid_file.parent)
        await running.start()
        yield running


async def waits_for(connection: asyncpg.Connection, table: str) -> bool:
    """Whether somebody waits for a table that is locked."""
    query = "select exists (select from pg_locks where relation = $1::regclass and not granted)"
    return bool(await connection.fetchval(query, table))


@dataclass
class Domain:
    """A domain with retraining rules."""

    bench: Bench
    model: Path

    @property
    def name(self) -> str:
        return self.bench.domain

    async def put(self, **rules: Any) -> Any:
        body = {"training": {"hyperparameters": QUICK}, "cooldown_hours": 0, "budget": {"jobs_a_day": 50}, **rules}
        return await self.bench.trainer.client.put(f"/v1/retraining/{self.name}", json=body)

    async def set(self, **rules: Any) -> dict[str, Any]:
        answer = await self.put(**rules)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def listed(self) -> dict[str, Any]:
        answer = await self.bench.trainer.client.get(f"/v1/retraining/{self.name}/firings")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def fired(self, count: int = 1) -> list[dict[str, Any]]:
        """The firings, newest first, once there are so many."""

        async def enough() -> Any:
            found = (await self.listed())["firings"]
            assert len(found) <= count, found
            return found if len(found) == count else None

        return list(await eventually(enough, 120))

    async def held(self, why: str) -> dict[str, Any]:
        """What was held back for a reason, once two evaluations have found it."""

        async def found() -> Any:
            listed = (await self.listed())["suppressed"]
            return next((one for one in listed if one["why"] == why and one["times"] > 1), None)

        return dict(await eventually(found, 60))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        pool = db.connect_pool("trainer", self.bench.trainer.env["LORAFLEET_DATABASE_URL"], 1)
        async with pool, pool.acquire() as connection:
            yield connection

    async def activate(
        self, version: str = "1.0.0", routing: v1.RoutingProfile | None = None, base_revision: str = ""
    ) -> str:
        """An active version of this domain: its finished job in the database, and what the registry publishes of it.

        base_revision: of the base model that it was trained for; empty is the trainer's own.
        """
        # What a later job begins from is fetched before its training is pretended.
        weights = await self.bench.blobs.put("checkpoints", f"{self.name} {version}".encode())
        revision = base_revision or base_model.revision(self.model)
        completed = self._completed(f"{self.name}-{version}", weights, revision)
        now = datetime.now(UTC)
        job = jobs.queue(v1.TrainingRequested(domain=self.name, method="lora"), completed.job_id, now)
        async with self.database() as connection:
            await store.add_job(connection, job)
            running = jobs.settle_inputs(jobs.take_up(job, now), self.name, completed.base_model)
            ended = jobs.succeed(running, completed, now)
            await connection.execute(
                "insert into datasets (dataset_id, domain, kind, samples, uri, sha256, bytes)"
                " values ($1, $1, 'completion', 1, 's3://b/d', '', 1) on conflict do nothing",
                self.name,
            )
            await store.save_job(connection, ended)
        adapter = v1.Adapter(
            adapter_id=f"{self.name}-lora-v{version}",
            family=f"{self.name}-lora",
            domain=self.name,
            method="lora",
            version=version,
            base_model=completed.base_model,
            artifact=completed.artifact,
            routing=routing,
        )
        number = 10 * int(version.replace(".", ""))
        await self.bench.upstream.publish(
            v1.AdapterRegistered(adapter=adapter, revision=number, job_id=completed.job_id)
        )
        await self.bench.upstream.publish(v1.AdapterActivated(adapter=adapter, revision=number + 1))

        async def known() -> bool:
            async with self.database() as connection:
                return bool(
                    await connection.fetchval(
                        "select exists (select from active_adapters join adapters using (adapter_id)"
                        " where adapter_id = $1)",
                        adapter.adapter_id,
                    )
                )

        await eventually(known, 30)
        return adapter.adapter_id

    def _completed(self, job_id: str, blob: v1.Blob, base_revision: str) -> v1.TrainingCompleted:
        configuration = resolve("lora", v1.Hyperparameters(rank=4), targets=("q_proj",))
        return v1.TrainingCompleted(
            job_id=job_id,
            domain=self.name,
            method="lora",
            base_model=v1.BaseModel(name="tiny-llama", revision=base_revision),
            dataset=v1.Dataset(dataset_id=self.name, blob=blob, samples=1),
            configuration=configuration.canonical(),
            configuration_sha256=configuration.sha256,
            checkpoint=blob,
            checkpoint_config=blob,
            artifact=v1.Artifact(blob=blob, rank=4, alpha=8, target_modules=("q_proj",)),
            report=blob,
        )
