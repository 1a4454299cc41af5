"""Runs the training subprocess and reads its messages."""

import sys
from collections.abc import AsyncGenerator, Sequence

from fleet_kit.forking import ForkServer
from fleet_kit.tracing import environment_of_child
from services.trainer.child_process import Crashed, bare_environment, child, log_tail
from services.trainer.training.protocol import Progress, TrainingSpec, read_line


class TrainingCrashed(Crashed):
    """The training ended without a result; the job can continue from its newest checkpoint."""

    what = "training process"


async def supervise(
    spec: TrainingSpec, command: Sequence[str] = (sys.executable,), fork_server: ForkServer | None = None
) -> AsyncGenerator[Progress, None]:
    """Start the training and yield its messages until it ends; closing the generator kills it and all that it started.

    Args:
        spec: what is trained.
        command: what runs `-m services.trainer.training SPEC.json`: an interpreter, or a launcher of several.
        fork_server: forks the process, if given, instead of the command; it has `training_environment`.

    Raises:
        TrainingCrashed: it ended with another status than 0.
    """
    spec_file, log = spec.work / "spec.json", spec.work / "training.log"
    if fork_server is not None:
        spec = spec.model_copy(update={"supervisor": fork_server.pid})
    spec_file.write_text(spec.model_dump_json())
    environment = training_environment(spec.threads)
    async with child(
        "services.trainer.training",
        str(spec_file),
        environment=environment,
        command=command,
        log=log,
        fork_server=fork_server,
    ) as process:
        assert process.stdout is not None
        async for line in process.stdout:
            yield read_line(line)
        status = await process.wait()
        if status != 0:
            raise TrainingCrashed(status, log_tail(log))


def training_environment(threads: int) -> dict[str, str]:
    """All variables of a training's process that computes with so many threads."""
    return bare_environment(
        "CUDA_VISIBLE_DEVICES",
        "HF_HOME",
        **environment_of_child(),  # so that its span is in the job's trace
        OMP_NUM_THREADS=str(threads),
        MKL_NUM_THREADS=str(threads),
        # Threads that wait spin, by default so long that beside other busy processes most of the speed goes (9 to 34
        # tokens/s on 2 loaded cores, 80 to 95 when they sleep at once). On idle cores a short spin is quicker than
        # sleeping: a forward and backward pass took 1.21 s with this bound, 1.37 s by default, 1.68 s sleeping.
        GOMP_SPINCOUNT="30000",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
    )
