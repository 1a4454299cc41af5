"""Trainings as Jobs, against a loopback server that speaks the Jobs part of the Kubernetes API and runs their commands."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from services.trainer.child_process import Crashed
from services.trainer.runs.launchers.kubernetes import KubernetesLauncher
from services.trainer.runs.launchers.manifest import JobTemplate, job_name
from services.trainer.training.configuration import Configuration
from services.trainer.training.protocol import Paused, Progress, Saved, Stepped, TrainingSpec, ask_to_pause
from tests.integration.trainer.conftest import eventually
from tests.integration.trainer.test_distributed import records_file

pytestmark = pytest.mark.integration

JOBS = "/apis/batch/v1/namespaces/fleet/jobs"


@dataclass
class Cluster:
    """The API server, and a node that runs each Job's container as a process."""

    url: str = ""
    python: str = sys.executable
    requests: list[str] = field(default_factory=list)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    reads_until_gone: dict[str, int] = field(default_factory=dict)
    """Jobs under foreground deletion: how often they are still there when they are read."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        name = path.removeprefix(JOBS).strip("/").removesuffix("/status")
        self.requests.append(f"{method} {'job' if name else 'jobs'}")
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.bodies:
                return 409, {"reason": "AlreadyExists"}
            self.bodies[name] = body
            command = body["spec"]["template"]["spec"]["containers"][0]["command"]
            self.processes[name] = subprocess.Popen([self.python, *command[1:]], stdin=subprocess.DEVNULL)
            return 201, body
        if name not in self.bodies:
            return 404, {"reason": "NotFound"}
        if method == "DELETE":
            if (process := self.processes.get(name)) is not None:
                process.kill()
                process.wait()
            self.reads_until_gone.setdefault(name, 2)
            return 200, self.bodies[name]
        if name in self.reads_until_gone:
            self.reads_until_gone[name] -= 1
            if self.reads_until_gone[name] < 0:
                del self.bodies[name], self.reads_until_gone[name]
                return 404, {"reason": "NotFound"}
        return 200, self.bodies[name] | {"status": self.status(name)}

    def status(self, name: str) -> dict[str, Any]:
        ended = self.processes[name].poll() if name in self.processes else None
        if ended is None:
            return {"active": 1}
        failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
        return {"conditions": [failed if ended else {"type": "Complete", "status": "True"}]}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            status, found = made.answer(self.command, self.path.partition("?")[0], body)
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = respond

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()
    for process in made.processes.values():
        process.kill()


@pytest.fixture
def launcher(cluster: Cluster, tmp_path: Path) -> KubernetesLauncher:
    api = client.BatchV1Api(client.ApiClient(client.Configuration(host=cluster.url)))
    template = JobTemplate("fleet", "image", 1, 2**30, 0, 600, "work", "models", tmp_path, Path("/models"))
    return KubernetesLauncher(api, template, poll_seconds=0.05, status_seconds=0.1, gone_seconds=5)


def spec(model: Path, work: Path) -> TrainingSpec:
    work.mkdir(exist_ok=True)
    return TrainingSpec(
        job_id="job-1",
        dataset=records_file(work / "data.parquet"),
        base_model=model,
        base_model_name="tiny",
        configuration=Configuration(rank=4, alpha=8, batch_size=8, max_steps=1000, learning_rate=0.01),
        work=work,
        resume_from=None,
        threads=1,
        probe_prompt="Hello",
        supervisor=os.getpid(),
    )


async def test_a_job_is_submitted_once_its_predecessor_is_gone_followed_paused_and_removed(
    cluster: Cluster, launcher: KubernetesLauncher, tiny_model: Path, tmp_path: Path
) -> None:
    stale = job_name("job-1")
    cluster.bodies[stale] = {"metadata": {"name": stale}}
    received: list[Progress] = []
    async with aclosing(launcher.launch(spec(tiny_model, tmp_path / "job"))) as messages:
        async for message in messages:
            received.append(message)
            if isinstance(message, Stepped) and message.step == 2:
                ask_to_pause(tmp_path / "job")
    first, submitted = cluster.requests.index("DELETE job"), cluster.requests.index("POST jobs")
    assert cluster.requests[first:submitted].count("GET job") == 3, "it waited until the old one was gone"
    paused = received[-1]
    assert isinstance(paused, Paused)
    saved = [one for one in received if isinstance(one, Saved)][-1]
    assert (saved.step, saved.folder.is_dir()) == (paused.step, True)
    assert [one.step for one in received if isinstance(one, Stepped)] == list(range(1, paused.step + 1))
    assert cluster.requests[-1] == "DELETE job"


async def test_a_reader_that_stops_ends_the_job(
    cluster: Cluster, launcher: KubernetesLauncher, tiny_model: Path, tmp_path: Path
) -> None:
    messages = launcher.launch(spec(tiny_model, tmp_path / "job"))
    following = asyncio.ensure_future(anext(messages))

    async def submitted() -> bool:
        return bool(cluster.processes)

    await eventually(submitted, 10)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    (process,) = cluster.processes.values()
    assert process.poll() is not None
    assert cluster.requests[-1] == "DELETE job"


async def test_a_job_that_fails_is_a_crash(cluster: Cluster, launcher: KubernetesLauncher, tmp_path: Path) -> None:
    cluster.python = "false"
    with pytest.raises(Crashed, match="BackoffLimitExceeded"):
        async with aclosing(launcher.launch(spec(tmp_path, tmp_path / "job"))) as messages:
            [message async for message in messages]


async def test_an_earlier_job_that_does_not_go_away_stops_the_launch(
    cluster: Cluster, launcher: KubernetesLauncher, tiny_model: Path, tmp_path: Path
) -> None:
    stale = job_name("job-1")
    cluster.bodies[stale] = {"metadata": {"name": stale}}
    cluster.reads_until_gone[stale] = 10_000
    launcher._gone_seconds = 0.3
    with pytest.raises(TimeoutError, match="is not gone"):
        async with aclosing(launcher.launch(spec(tiny_model, tmp_path / "job"))) as messages:
            [message async for message in messages]
    assert "POST jobs" not in cluster.requests
