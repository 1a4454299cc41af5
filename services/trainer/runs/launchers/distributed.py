"""`accelerate launch` on one machine: several processes that share each batch and average their gradients."""

import socket
import sys


def distributed(processes: int, *, python: str = sys.executable, port: int | None = None) -> tuple[str, ...]:
    """The command that runs a Python module in so many processes: on GPUs by NCCL, else on cores by gloo.

    accelerate starts them with torchrun when it is told `--multi_gpu`, whether there are GPUs or not; its `--cpu` asks
    for MPI. The training itself says that it uses the CPU (`TrainingArguments.use_cpu`). `port` is where they meet, a
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
