"""Trainings as subprocesses of this service: one process, or several that share each batch."""

import socket
import sys
from collections.abc import AsyncGenerator

from services.trainer.runs.supervisor import supervise
from services.trainer.training.protocol import Progress, TrainingSpec


class LocalLauncher:
    """Runs trainings on this machine. They die with this process."""

    def launch(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        processes = spec.configuration.processes
        return supervise(spec, distributed(processes) if processes > 1 else (sys.executable,))


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
