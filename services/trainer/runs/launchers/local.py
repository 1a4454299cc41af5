"""Trainings as subprocesses of this service: one process, or several that share each batch."""

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from fleet_kit.forking import ForkServer
from services.trainer.runs.supervisor import supervise, training_environment
from services.trainer.training.protocol import Progress, TrainingSpec

_KEPT_SECONDS = 120.0
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd")
_FORKS = sys.platform == "linux" and not any(Path(one).exists() for one in _ACCELERATORS)
"""A device that imports have opened does not work in a fork."""


class LocalLauncher:
    """Runs trainings on this machine. They die with this process.

    Where trainings compute on processors, one process imports what they need when the first begins, and each is a fork
    of it: imports take longer than a short training. It ends when there has been none for some time, for its memory.
    """

    def __init__(self, kept_seconds: float = _KEPT_SECONDS) -> None:
        self._kept_seconds = kept_seconds
        self._fork_server: ForkServer | None = None
        self._running = 0
        self._ending: asyncio.TimerHandle | None = None

    def launch(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        configuration = spec.configuration
        if configuration.processes > 1:
            return supervise(spec, distributed(configuration.processes))
        return supervise(spec) if configuration.method == "qlora" or not _FORKS else self._forked(spec)

    async def _forked(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        if self._ending is not None:
            self._ending.cancel()
        self._running += 1
        try:
            if self._fork_server is None or not self._fork_server.running:
                self._fork_server = ForkServer(
                    ["services.trainer.training.preloaded"],
                    training_environment(spec.threads),
                    log=spec.work / "training.log",
                )
            async with aclosing(supervise(spec, fork_server=self._fork_server)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._running -= 1
            if not self._running:
                self._ending = asyncio.get_running_loop().call_later(self._kept_seconds, self._end)

    def _end(self) -> None:
        if self._fork_server is not None and not self._running:
            self._fork_server.close()
            self._fork_server = None


def distributed(processes: int, *, python: str = sys.executable, port: int | None = None) -> tuple[str, ...]:
    """The command that runs a Python module in so many processes: on GPUs by NCCL, else on cores by gloo.

    accelerate starts them with torchrun when it is given `--multi_gpu`, with GPUs or without; its `--cpu` needs
    for MPI. The training itself chooses the CPU (`TrainingArguments.use_cpu`). `port` is where they meet, a
    free one unless given.
    """
    return (
        *(python, "-m", "accelerate.commands.launch"),
        *("--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--machine_rank", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_ip", "127.0.0.1", "--main_process_port", str(port or _free_port())),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
