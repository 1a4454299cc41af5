"""How long a whole route takes over HTTP, encoding included, and an activation until it is routed to."""

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
from nats.js import JetStreamContext

from benchmarks.report import Row, Samples
from benchmarks.routing_vectors import Draw
from fleet_cli.stack import Fleet
from fleet_cli.stack.environment import service_environment
from fleet_cli.stack.models import embedding_model_path
from fleet_cli.stack.ports import choose
from fleet_cli.stack.single import SingleService
from fleet_events import v1
from fleet_kit.cloudevents import seal
from fleet_kit.db import connect_pool
from lora_core.embedding import embedding_identity
from services.router import store
from services.router.domain import Route
from services.router.evidence import Evidence, Kind

DOMAIN = "benchmark"
DIMENSION = 384
VECTOR_BYTES = 2 * DIMENSION + DIMENSION // 2 + 16
"""As the index keeps it: 16 bits a number, a byte of each along half of the axes, and scales and bounds."""
PROMPTS = 256
"""Held-out prompts of an adapter, which its threshold comes from: as many as the trainer publishes."""
QUERIES = (
    "how long do I boil an egg",
    "transfer fifty dollars to my checking account please",
    "what documents does a building permit in Bavaria need",
    "why does the nightly backup job fail with a timeout",
    "is my flight to Lisbon on time",
)


async def rows(draw: Draw, *, quick: bool) -> list[Row]:
    """Of each size (adapters, vectors of each) times of routes and activations, and the memory.

    The last size has 1,000,000 vectors. draw: the vectors of an adapter.
    """
    sizes = [(10, 64)] if quick else [(10, 64), (10_000, 64), (15_625, 64)]
    repeats, activations = (5, 1) if quick else (200, 11)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder) / "home") as fleet:
        fleet.start([])
        router = _service(fleet)
        await asyncio.to_thread(router.start)  # its tables
        for adapters, each in sizes:
            await asyncio.to_thread(router.stop)
            await _fill(router, draw, adapters, each)
            await asyncio.to_thread(router.start)
            async with _client(fleet, router) as client:
                found.append(await _routes(client, adapters, each, repeats))
                found.append(await _activations(fleet, client, adapters, activations))
                found.append(_memory(router, adapters, each))
        await asyncio.to_thread(router.stop)
    return found


def _service(fleet: Fleet) -> SingleService:
    ports = {**fleet.ports, **choose(("router",), {})}
    env = service_environment("router", fleet.home, ports, fleet.credentials, embedding_model_path())
    return SingleService("router", env, logs=fleet.home.logs, run=fleet.home.run)


@asynccontextmanager
async def _client(fleet: Fleet, router: SingleService) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    async with httpx.AsyncClient(base_url=router.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


async def _fill(router: SingleService, draw: Draw, adapters: int, each: int) -> None:
    made_by = embedding_identity(embedding_model_path())
    generator = np.random.default_rng(0)
    async with connect_pool("router", router.env["LORAFLEET_DATABASE_URL"], 1) as pool, pool.acquire() as connection:
        await store.empty_index(connection)
        for number in range(adapters):
            vectors = draw(generator, each)
            nearness = generator.normal(0.7, 0.08, PROMPTS).astype(np.float32)
            name = f"{DOMAIN}-{number}-lora"
            async with connection.transaction():
                await store.save_route(connection, Route(f"{name}-v1.0.0", name, DOMAIN, "1.0.0", activated=1))
                evidence = Evidence(Kind.CENTROIDS, vectors, nearness)
                await store.save_evidence(connection, f"{name}-v1.0.0", made_by, evidence)


def _memory(router: SingleService, adapters: int, each: int) -> Row:
    pid = router.process.pid
    resident = psutil.Process(pid).memory_info().rss / 1e9
    limited = adapters * each >= 1_000_000
    return Row(
        what=f"resident memory of the router, {adapters:,} adapters of {each} vectors",
        unit="GB",
        ours=resident,
        ask="at most 2" if limited else None,
        met=resident <= 2 if limited else None,
        note=f"of which vectors and their codes {adapters * each * VECTOR_BYTES / 1e9:.2f}",
    )


async def _routes(client: httpx.AsyncClient, adapters: int, each: int, repeats: int) -> Row:
    seconds: list[float] = []
    for turn in range(repeats + len(QUERIES)):
        began = time.perf_counter()
        answer = await client.post("/v1/route", json={"query": QUERIES[turn % len(QUERIES)]})
        seconds.append(time.perf_counter() - began)
        answer.raise_for_status()
    samples = Samples(tuple(1000 * one for one in seconds[len(QUERIES) :]))
    ask = {10: 10, 10_000: 15, 15_625: 20}.get(adapters)
    slow = statistics.quantiles(samples.values, n=100)[98] if repeats >= 100 else max(samples.values)
    return Row(
        what=f"a route over HTTP, {adapters:,} adapters of {each} vectors, p50",
        unit="ms",
        ours=samples.median,
        ask=None if ask is None else f"at most {ask}",
        met=None if ask is None else samples.median <= ask,
        n=repeats,
        spread=samples.spread,
        note=f"encoding included; p99 {slow:.1f} ms",
    )


async def _activations(fleet: Fleet, client: httpx.AsyncClient, adapters: int, repeats: int) -> Row:
    nats = await fleet.connect_nats("registry")
    try:
        seconds = [await _activate(nats.jetstream(), client) for _ in range(repeats + 1)]
    finally:
        await nats.close()
    samples = Samples(tuple(1000 * one for one in seconds[1:]))
    return Row(
        what=f"from AdapterActivated to routable, beside {adapters:,} adapters",
        unit="ms",
        ours=samples.median,
        ask="at most 200",
        met=samples.median <= 200,
        n=repeats,
        spread=samples.spread,
        note="a description and four prompts, which the router encodes; seen by asking for the route",
    )


async def _activate(jetstream: JetStreamContext, client: httpx.AsyncClient) -> float:
    """Seconds until a query of the adapter's own is routed to it."""
    name, word = f"{DOMAIN}-{secrets.token_hex(4)}-lora", secrets.token_hex(8)
    digest = "a" * 64
    blob = v1.Blob(uri=f"s3://lorafleet/trainer/artifacts/{digest}", sha256=digest)
    adapter = v1.Adapter(
        adapter_id=f"{name}-v1.0.0",
        family=name,
        domain=DOMAIN,
        method="lora",
        version="1.0.0",
        base_model=v1.BaseModel(name="base", revision="b" * 64),
        artifact=v1.Artifact(blob=blob, rank=4, alpha=8),
        description=f"Questions about {word}",
        example_prompts=tuple(f"{question} {word}?" for question in ("what is", "who made", "where is", "when was")),
    )
    out = seal(v1.AdapterActivated(adapter=adapter, revision=1), service="registry", entity=name, trace={})
    began = time.perf_counter()
    await jetstream.publish(out.subject, out.body, headers=out.headers)
    while True:
        answer = await client.post("/v1/route", json={"query": f"what is {word}?", "threshold": 0.9})
        if any(match["family"] == name for match in answer.raise_for_status().json()["matches"]):
            return time.perf_counter() - began
