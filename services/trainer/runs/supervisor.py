"""Runs the training subprocess, reads what it says, and never lets it outlive this process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from fleet_kit.tracing import environment_of_child
from services.trainer.training.protocol import Progress, TrainingSpec, read_line

_LINE_LIMIT = 4 * 1024 * 1024
_TAIL_BYTES = 2000
# Beside these only what traces need reaches the subprocess: it has no credentials of the fleet.
_PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME")


class Crashed(Exception):
    """The subprocess ended without a result: killed, out of memory, or a defect."""

    what = "training process"

    def __init__(self, status: int, tail: str) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(f"the {self.what} {how}: {tail or 'it said nothing'}")
        self.status = status


async def supervise(spec: TrainingSpec, command: Sequence[str] = (sys.executable,)) -> AsyncGenerator[Progress, None]:
    """Start the training and yield its messages until it ends; closing the generator kills it and all that it started.

    Args:
        command: what runs `-m services.trainer.training SPEC.json`: an interpreter, or a launcher of several.

    Raises:
        Crashed: it ended with another status than 0.
    """
    spec_file, log_file = spec.work / "spec.json", spec.work / "training.log"
    spec_file.write_text(spec.model_dump_json())
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            "-m",
            "services.trainer.training",
            str(spec_file),
            stdin=asyncio.subprocess.PIPE,  # held open: its end tells the subprocess that we are gone
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=_environment(spec.threads),
            limit=_LINE_LIMIT,
            start_new_session=True,  # a group of its own: a launcher's processes are killed with it
        )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            yield read_line(line)
        status = await process.wait()
        if status != 0:
            raise Crashed(status, _tail(log_file))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())


def _environment(threads: int) -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ} | environment_of_child()
    return passed | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # Threads that wait spin, by default so long that beside other busy processes most of the speed goes (9 to 34
        # tokens/s on 2 loaded cores, 80 to 95 when they sleep at once). On idle cores a short spin is quicker than
        # sleeping: a forward and backward pass took 1.21 s with this bound, 1.37 s by default, 1.68 s sleeping.
        "GOMP_SPINCOUNT": "30000",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
