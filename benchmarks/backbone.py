"""What the event backbone costs: `python -m benchmarks.backbone [--quick] [--backlog EVENTS] [--json FILE]`.

Throughput from outbox to committed effect beside a bare nats-py loop; a backlog that the registry works off; the time
from a finished training to an answering adapter; idle memory; start of the whole embedded stack.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from fastapi import APIRouter
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from benchmarks.activation import completed_to_answering
from benchmarks.backlog import backlog
from benchmarks.report import Row, Samples, emit, parser_of
from fleet_cli.stack import Fleet
from fleet_cli.stack.environment import service_environment
from fleet_events import v1
from fleet_events.topology import SERVICES
from fleet_kit.cloudevents import Envelope
from fleet_kit.handlers import Handlers
from fleet_kit.service import Service, create_app
from fleet_kit.settings import ServiceSettings
from fleet_kit.transaction import Transaction

PEER = "nats-py publish + ack, no outbox"
PEER_SUBJECT = "benchmark.feedback"
WITHOUT_TORCH = ("registry", "trainer", "evaluator")


class Effects:
    """A registry of one handler, whose effect is one row. An effect counts once its transaction has committed."""

    def __init__(self) -> None:
        self.handlers: Handlers[Any] = Handlers("registry")
        self.handlers.on(v1.TrainingCompleted)(self._handle)
        self.count = 0
        self._changed = asyncio.Event()
        self._under_way: Counter[int] = Counter()

    async def _handle(self, event: v1.TrainingCompleted, tx: Transaction, _service: object) -> None:
        await tx.connection.execute(
            "insert into lease (name, holder, token, expires_at) values ($1, 'effect', 1, now())", event.job_id
        )
        self._under_way[id(tx)] += 1

    def watch(self, service: Service[Any, Any]) -> None:
        """Count what the service commits; called before it consumes."""
        transaction = service.transaction

        @asynccontextmanager
        async def counted(cause: Envelope | None = None) -> AsyncIterator[Transaction]:
            async with transaction(cause) as tx:
                try:
                    yield tx
                finally:
                    handled = self._under_way.pop(id(tx), 0)
            self.count += handled
            self._changed.set()

        setattr(service, "transaction", counted)  # noqa: B010 - of this one service

    async def reach(self, count: int) -> None:
        while self.count < count:
            self._changed.clear()
            await self._changed.wait()


def completed(job_id: str) -> v1.TrainingCompleted:
    blob = v1.Blob(uri="s3://lorafleet/trainer/x", sha256="0" * 64)
    return v1.TrainingCompleted(
        job_id=job_id,
        domain="benchmark",
        method="lora",
        base_model=v1.BaseModel(name="base", revision="0" * 64),
        dataset=v1.Dataset(dataset_id="d", blob=blob),
        configuration="{}",
        configuration_sha256="0" * 64,
        checkpoint=blob,
        checkpoint_config=blob,
        artifact=v1.Artifact(blob=blob, rank=16, alpha=32),
        report=blob,
    )


@asynccontextmanager
async def kit_service(
    fleet: Fleet,
    name: str,
    handlers: Handlers[Any] | None = None,
    watch: Callable[[Service[Any, Any]], None] = lambda _service: None,
) -> AsyncIterator[Service[Any, Any]]:
    env = service_environment(name, fleet.home, fleet.ports, fleet.credentials, Path())
    values = {key.removeprefix("LORAFLEET_").lower(): value for key, value in env.items()}
    settings = ServiceSettings.model_validate(values)
    app = create_app(name, settings, handlers=handlers, api=APIRouter())
    async with app.router.lifespan_context(app):
        service: Service[Any, Any] = app.state.service
        watch(service)
        while service.relay is None:
            await asyncio.sleep(0.01)
        yield service


class Ours:
    """Trainer's outbox → JetStream → registry's inbox → committed effect."""

    def __init__(self, trainer: Service[Any, Any], effects: Effects) -> None:
        self._trainer = trainer
        self._effects = effects
        self._published = 0

    async def single(self, count: int) -> None:
        for _ in range(count):
            await self._publish(1)
            await self._effects.reach(self._published)

    async def batch(self, count: int) -> None:
        for _ in range(count // 50):
            await self._publish(50)
        await self._effects.reach(self._published)

    async def _publish(self, count: int) -> None:
        async with self._trainer.transaction() as tx:
            for _ in range(count):
                self._published += 1
                job = f"job-{id(self)}-{self._published}"
                await tx.emit(completed(job), job)


class Bare:
    """The same bodies, published and acknowledged with nats-py alone: no transaction, no effect, no inbox."""

    def __init__(self, jetstream: JetStreamContext, subscription: JetStreamContext.PullSubscription) -> None:
        self._jetstream = jetstream
        self._subscription = subscription
        self._body = completed("job").to_json()

    async def single(self, count: int) -> None:
        for _ in range(count):
            await self._jetstream.publish(PEER_SUBJECT, self._body)
            for message in await self._subscription.fetch(1):
                await message.ack_sync()

    async def batch(self, count: int) -> None:
        acks = [await self._jetstream.publish_async(PEER_SUBJECT, self._body) for _ in range(count)]
        await asyncio.gather(*acks)
        done = 0
        while done < count:
            messages = await self._subscription.fetch(min(256, count - done))
            for message in messages:
                await message.ack()
            done += len(messages)


async def rate(call: Callable[[int], Awaitable[None]], count: int) -> float:
    started = time.perf_counter()
    await call(count)
    return count / (time.perf_counter() - started)


async def commits_per_second(service: Service[Any, Any], count: int) -> float:
    """One small committed write after another on one connection: what the disk allows."""
    async with service.db.acquire() as connection:

        async def write(times: int) -> None:
            for number in range(times):
                await connection.execute(
                    "insert into lease (name, holder, token, expires_at) values ($1, 'limit', 1, now())"
                    " on conflict (name) do update set token = lease.token + 1",
                    f"limit-{number}",
                )

        return await rate(write, count)


async def throughput(fleet: Fleet, *, quick: bool) -> list[Row]:
    rounds, single, batch = (2, 10, 100) if quick else (7, 100, 2000)
    effects = Effects()
    client = await fleet.connect_nats("admin")
    jetstream = client.jetstream()
    await jetstream.add_stream(name="BENCHMARK", subjects=[PEER_SUBJECT])
    subscription = await jetstream.pull_subscribe(
        PEER_SUBJECT, durable="benchmark", stream="BENCHMARK", config=ConsumerConfig(max_ack_pending=5000)
    )
    bare = Bare(jetstream, subscription)
    found: dict[str, list[float]] = {key: [] for key in ("ours1", "bare1", "oursN", "bareN", "commit")}
    registry = kit_service(fleet, "registry", effects.handlers, effects.watch)
    async with registry, kit_service(fleet, "trainer") as trainer:
        ours = Ours(trainer, effects)
        await ours.single(3)  # both sides warm
        await bare.single(3)
        for _ in range(rounds):
            found["ours1"].append(await rate(ours.single, single))
            found["bare1"].append(await rate(bare.single, single))
            found["oursN"].append(await rate(ours.batch, batch))
            found["bareN"].append(await rate(bare.batch, batch))
            found["commit"].append(await commits_per_second(trainer, single))
    await client.close()
    samples = {key: Samples(tuple(values)) for key, values in found.items()}
    commits = samples["commit"].median
    rows: list[Row] = []
    for what, mine, theirs, bound, ask, note in (
        ("one event at a time", "ours1", "bare1", commits / 2, 0.5 * commits / 2, "limit: two commits, one by one"),
        ("many at once", "oursN", "bareN", None, 0.5 * samples["bareN"].median, "50 events per transaction published"),
    ):
        rows.append(
            Row(
                what=f"outbox → JetStream → inbox → committed effect, {what}",
                unit="events/s",
                ours=samples[mine].median,
                peers={PEER: samples[theirs].median},
                ratio=samples[mine].median / samples[theirs].median,
                limit=bound,
                ask=f"at least 0.5 × {'the limit' if bound else 'the bare loop'}",
                met=samples[mine].median >= ask,
                n=rounds,
                spread=samples[mine].spread,
                note=note,
            )
        )
    return rows


def memory(fleet: Fleet) -> list[Row]:
    """Proportional set size of each service's process once the fleet is ready and idle."""
    time.sleep(2)
    rows: list[Row] = []
    for name in SERVICES:
        process = psutil.Process(fleet.part(name).pid)
        used = process.memory_full_info().pss / 2**20
        bounded = name in WITHOUT_TORCH
        rows.append(
            Row(
                what=f"idle memory of {name}" + ("" if bounded else " (holds models)"),
                unit="MB",
                ours=used,
                ask="under 80" if bounded else None,
                met=used < 80 if bounded else None,
            )
        )
    return rows


def start_time(home: Path, *, rounds: int) -> Row:
    seconds: list[float] = []
    for _ in range(rounds):
        with Fleet(home) as fleet:
            started = time.perf_counter()
            fleet.start()
            seconds.append(time.perf_counter() - started)
    samples = Samples(tuple(seconds))
    return Row(
        what="start of the whole embedded stack, until every part is ready",
        unit="s",
        ours=samples.median,
        ask="under 10",
        met=samples.median < 10,
        n=rounds,
        spread=samples.spread,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run and report."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--backlog", type=int, default=50_000, help="answers that wait; 1000000 takes some minutes")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows: list[Row] = []
        with Fleet(Path(folder) / "servers") as servers:
            servers.start([])
            rows += asyncio.run(throughput(servers, quick=chosen.quick))
        home = Path(folder) / "fleet"
        with Fleet(home) as fleet:
            fleet.start()
            rows += memory(fleet)
            rows.append(asyncio.run(completed_to_answering(fleet, rounds=1 if chosen.quick else 5)))
        rows.append(start_time(home, rounds=1 if chosen.quick else 3))
        with Fleet(home) as fleet:
            fleet.start(["registry"])
            rows += asyncio.run(backlog(fleet, 2_000 if chosen.quick else chosen.backlog))
    emit(rows, chosen.json)


if __name__ == "__main__":
    main()
