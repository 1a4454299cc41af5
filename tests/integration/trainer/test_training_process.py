"""The training subprocess by itself: what it computes, and that it never outlives who started it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.child_process import Crashed
from services.trainer.cpu_priority import NICE
from services.trainer.datasets import records
from services.trainer.datasets.records import Kind, Record, Split, schema
from services.trainer.runs.launchers.local import LocalLauncher
from services.trainer.training.configuration import Configuration
from services.trainer.training.protocol import Progress, Stepped, TrainingRefused, TrainingSpec
from tests.integration.trainer.conftest import eventually, pairs

pytestmark = pytest.mark.integration

CONFIGURATION = Configuration(rank=4, alpha=8, batch_size=8, max_steps=3, learning_rate=0.01, checkpoint_steps=2)


def completion(pair: dict[str, Any], split: Split = "train") -> Record:
    return Record(Kind.COMPLETION, records.prompt_messages(pair["prompt"]), (pair["completion"],), split=split)


def write(path: Path, data: list[Record]) -> Path:
    pq.write_table(pa.Table.from_pylist([record.values() for record in data], schema=schema()), path)
    return path


LAUNCHER = LocalLauncher()


def spec(model: Path, work: Path, configuration: Configuration = CONFIGURATION, **changes: object) -> TrainingSpec:
    work.mkdir(parents=True, exist_ok=True)
    data = write(work / "data.parquet", [completion(pair) for pair in pairs("shop", 8)])
    made = TrainingSpec(
        job_id="job-1",
        dataset=data,
        base_model=model,
        base_model_name="tiny-llama",
        configuration=configuration,
        work=work,
        resume_from=None,
        threads=1,
        probe_prompt="What opens gate 3?",
        supervisor=os.getpid(),
    )
    return made.model_copy(update=changes)


def training_of(trainer: psutil.Process) -> psutil.Process:
    """The one training that runs; its parent is the trainer's fork server."""
    [server] = [one for one in trainer.children() if "services.trainer.training.preloaded" in one.cmdline()]
    [training] = server.children()
    return training


def session_priority(process: psutil.Process) -> int:
    """How Linux weighs its session against others; `NICE` where this kernel weighs none."""
    autogroup = Path(f"/proc/{process.pid}/autogroup")
    return int(autogroup.read_text().rpartition(" nice ")[2]) if autogroup.exists() else NICE


async def train(job_spec: TrainingSpec) -> list[Progress]:
    async with aclosing(LAUNCHER.launch(job_spec)) as messages:
        return [message async for message in messages]


async def test_a_process_that_dies_is_a_crash_with_the_end_of_its_log(tiny_model: Path, tmp_path: Path) -> None:
    # A file that is gone may come again; what is wrong in itself is refused below.
    job_spec = spec(tiny_model, tmp_path / "job", dataset=tmp_path / "gone.parquet")
    with pytest.raises(Crashed, match="status 1") as crashed:
        await train(job_spec)
    assert "FileNotFoundError" in str(crashed.value)


async def test_a_fault_of_the_job_s_own_model_or_data_is_a_refusal_that_names_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-model"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    (refused,) = await train(spec(broken, tmp_path / "model"))
    assert isinstance(refused, TrainingRefused)
    assert refused.reason.startswith("training failed: ValueError: ")
    garbled = spec(tiny_model, tmp_path / "data")
    garbled.dataset.write_bytes(b"no parquet")
    (refused,) = await train(garbled)
    assert isinstance(refused, TrainingRefused)
    assert refused.reason.startswith("training failed: ArrowInvalid: Parquet magic bytes not found")


async def test_what_trainings_are_forked_from_ends_when_there_has_been_none_for_some_time(
    tiny_model: Path, tmp_path: Path
) -> None:
    def servers() -> set[int]:
        return {
            one.pid for one in psutil.Process().children() if "services.trainer.training.preloaded" in one.cmdline()
        }

    before = servers()
    job_spec = spec(tiny_model, tmp_path / "job", dataset=tmp_path / "gone.parquet")
    async with aclosing(LocalLauncher(kept_seconds=0.2).launch(job_spec)) as messages:
        with pytest.raises(Crashed):
            await anext(messages)
    assert len(servers() - before) == 1

    async def ended() -> bool:
        return servers() <= before

    await eventually(ended, timeout=10)


async def test_a_training_has_a_low_priority_with_all_its_threads(tiny_model: Path, tmp_path: Path) -> None:
    """What inference answers on the same cores must not wait for it."""
    endless = dataclasses.replace(CONFIGURATION, max_steps=100_000)
    async with aclosing(LAUNCHER.launch(spec(tiny_model, tmp_path / "job", endless, threads=2))) as messages:
        await anext(message async for message in messages if isinstance(message, Stepped))
        training = training_of(psutil.Process())
        assert os.getsid(training.pid) == training.pid
        assert session_priority(training) == NICE
        computing = [os.getpriority(os.PRIO_PROCESS, thread.id) for thread in training.threads()]
    # Libraries of the fork server have threads before the training begins; they compute nothing in it.
    assert computing.count(NICE) >= 2, computing
    assert os.getpriority(os.PRIO_PROCESS, 0) == 0


async def test_closing_the_generator_kills_the_process(tiny_model: Path, tmp_path: Path) -> None:
    messages = LAUNCHER.launch(spec(tiny_model, tmp_path / "job", Configuration(rank=4, max_steps=10_000)))
    async for message in messages:
        if isinstance(message, Stepped):
            break
    child = training_of(psutil.Process())
    await messages.aclose()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_the_process_dies_with_a_supervisor_that_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    job_spec = spec(tiny_model, tmp_path / "job", Configuration(rank=4, max_steps=10_000))
    program = (
        "import asyncio, os, sys\n"
        "from services.trainer.training.protocol import TrainingSpec\n"
        "from services.trainer.runs.launchers.local import LocalLauncher\n"
        "spec = TrainingSpec.model_validate_json(sys.argv[1]).model_copy(update={'supervisor': os.getpid()})\n"
        "async def main():\n"
        "    async for message in LocalLauncher().launch(spec):\n"
        "        print(message.kind, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", program, job_spec.model_dump_json()],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert await asyncio.to_thread(supervisor.stdout.readline) == "began\n"
        child = training_of(psutil.Process(supervisor.pid))
        killed_at = time.monotonic()
        supervisor.kill()

        async def gone() -> bool:
            return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

        await eventually(gone, timeout=5)
        assert time.monotonic() - killed_at < 5


async def test_the_process_sees_no_secret_of_the_service(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFLEET_S3_SECRET_KEY", "hidden")
    messages = LAUNCHER.launch(spec(tiny_model, tmp_path / "job", Configuration(rank=4, max_steps=10_000)))
    async for _ in messages:
        break
    child = training_of(psutil.Process())
    assert not any(name.startswith("LORAFLEET_") for name in child.environ())
    await messages.aclose()
