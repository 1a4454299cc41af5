"""A job's server-sent events as a client reads them, and a job that is trained meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from services.trainer.reports.document import TrainingReport
from tests.conftest import RunningService
from tests.integration.trainer.conftest import SHORT, pairs

DOMAIN = "reports"


STEPS = 20


@dataclass
class Followed:
    """Events of a stream in their order, and the comments between them."""

    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [data for kind, _, data in self.events if kind == name]

    @property
    def last_id(self) -> str:
        return self.events[-1][1]


async def listen(client: httpx.AsyncClient, job_id: str, last_id: str = "", until: int | None = None) -> Followed:
    """Read a job's stream to its end, or to so many events."""
    followed = Followed()
    headers = {"Last-Event-ID": last_id} if last_id else {}
    path = f"/v1/jobs/{job_id}/metrics/stream"
    async with client.stream("GET", path, headers=headers, timeout=120) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
                continue
            if "data" in fields:
                followed.events.append((fields["event"], fields["id"], json.loads(fields["data"])))
            if "retry" in fields:
                followed.retries.append(fields["retry"])
            fields = {}
            if until is not None and len(followed.events) >= until:
                break
    return followed


@dataclass
class Trained:
    """A job that was watched from its beginning to its end."""

    trainer: RunningService
    job_id: str
    followed: Followed

    async def get(self, path: str, **headers: str) -> httpx.Response:
        answer = await self.trainer.client.get(f"/v1/jobs/{self.job_id}/{path}", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def report(self) -> TrainingReport:
        return TrainingReport.model_validate_json((await self.get("report")).content)


@dataclass
class Watched:
    """A job that trains, with a reader on its stream from the beginning."""

    job_id: str
    reading: asyncio.Task[Followed]


@pytest.fixture(scope="module")
async def watched(trainer: RunningService) -> Watched:
    lines = "".join(json.dumps(line) + "\n" for line in pairs(DOMAIN, 24))
    await trainer.client.post("/v1/samples", content=lines)
    asked = {**SHORT, "maxSteps": STEPS, "validationPart": 0.25, "validationSteps": 5, "earlyStoppingPatience": 50}
    request = {"domain": DOMAIN, "hyperparameters": asked, "exports": ["int8", "gguf"], "description": "opens <gates>"}
    answer = await trainer.client.post("/v1/jobs", json=request)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    return Watched(job_id, asyncio.create_task(listen(trainer.client, job_id)))


@pytest.fixture(scope="module")
async def trained(trainer: RunningService, watched: Watched) -> Trained:
    """One job with validation and exports, for all tests that look at what it leaves."""
    return Trained(trainer, watched.job_id, await watched.reading)
