"""Several processes share a training: `accelerate launch`, two processes on the CPU, gloo."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.trainer.datasets.records import Kind, Record, prompt_messages, schema
from services.trainer.runs.launchers.local import LocalLauncher
from services.trainer.training.configuration import Configuration
from services.trainer.training.protocol import Stepped, TrainingSpec
from tests.integration.trainer.conftest import eventually, pairs

pytestmark = pytest.mark.integration


KINDS = {"sft": Kind.COMPLETION, "dpo": Kind.PREFERENCE, "ranking": Kind.RANKING}


def records_file(path: Path, objective: str = "sft") -> Path:
    """Seventeen records to train on: batches of 8 come out as 6, 6 and 5, which two processes share unevenly."""
    others = {"sft": (), "dpo": ("No gate.",), "ranking": ("No gate at all.", "None.")}[objective]
    data = [
        Record(KINDS[objective], prompt_messages(one["prompt"]), (one["completion"], *others))
        for one in pairs("shop", 17)
    ]
    pq.write_table(pa.Table.from_pylist([one.values() for one in data], schema=schema()), path)
    return path


def spec(
    model: Path, work: Path, processes: int, objective: str, micro: int | None = None, again: bool = False
) -> TrainingSpec:
    work.mkdir()
    return TrainingSpec(
        job_id="job",
        dataset=records_file(work / "data.parquet", objective),
        base_model=model,
        base_model_name="tiny",
        configuration=Configuration(
            objective=objective,
            rank=4,
            alpha=8,
            batch_size=8,
            max_steps=1000,
            learning_rate=0.01,
            processes=processes,
            micro_batch_size=micro,
            gradient_checkpointing=again,
        ),
        work=work,
        resume_from=None,
        threads=1,
        probe_prompt="Hello",
        supervisor=os.getpid(),
    )


async def steps(job_spec: TrainingSpec, count: int) -> tuple[list[Stepped], list[psutil.Process]]:
    """The first steps of a training, which is ended behind them, and the processes that were at it."""
    found: list[Stepped] = []
    async with aclosing(LocalLauncher().launch(job_spec)) as messages:
        async for message in messages:
            if isinstance(message, Stepped):
                found.append(message)
            if len(found) == count:
                break
        started = psutil.Process().children(recursive=True)
        own = [one for one in started if "services.trainer.training" in " ".join(one.cmdline())]
        # Fork servers wait for another training; what they forked has their command line.
        servers = [one for one in psutil.Process().children() if "preloaded" in " ".join(one.cmdline())]
        at_work = [one for one in own if one not in servers]
    return found, at_work


@pytest.mark.heavy
@pytest.mark.requirement("TP-1.1")
# In parts of two, processes whose rows are three and two have two parts and one.
@pytest.mark.parametrize(
    ("objective", "micro", "again"),
    [("sft", None, False), ("sft", 2, True), ("dpo", 2, False), ("ranking", None, False)],
)
async def test_two_processes_have_the_loss_curve_of_one_at_the_same_batch_and_die_with_their_launcher(
    tiny_model: Path, tmp_path: Path, objective: str, micro: int | None, again: bool
) -> None:
    alone, process = await steps(spec(tiny_model, tmp_path / "one", 1, objective), 5)
    together, processes = await steps(spec(tiny_model, tmp_path / "two", 2, objective, micro, again), 5)
    assert [one.step for one in together] == [1, 2, 3, 4, 5], "only the first process speaks"
    for single, shared in zip(alone, together, strict=True):
        assert shared.loss == pytest.approx(single.loss, abs=1e-4)
        assert shared.gradient_norm == pytest.approx(single.gradient_norm, rel=1e-3)
    assert len(process) == 1
    assert len(processes) == 3, "the launcher and its two"

    async def gone() -> bool:
        return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in process + processes)

    await eventually(gone, 10)
