"""Trainings as subprocesses of this service: one process, or several that share each batch."""

import sys
from collections.abc import AsyncGenerator

from services.trainer.runs.launchers.distributed import distributed
from services.trainer.runs.supervisor import supervise
from services.trainer.training.protocol import Progress, TrainingSpec


class LocalLauncher:
    """Runs trainings on this machine. They die with this process."""

    def launch(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        processes = spec.configuration.processes
        return supervise(spec, distributed(processes) if processes > 1 else (sys.executable,))
