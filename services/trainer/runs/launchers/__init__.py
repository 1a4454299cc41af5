"""Where a training runs: here as one process or several, or as a Kubernetes Job."""

from collections.abc import AsyncGenerator
from typing import Protocol

from services.trainer.training.protocol import Progress, TrainingSpec


class Launcher(Protocol):
    """Runs trainings somewhere."""

    def launch(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        """Start the training and yield its messages until it ends; closing the generator ends it.

        When it yields first, no earlier run of the same job is at work any more. A pause is requested through the
        work folder (see training/protocol.py).

        Raises:
            Crashed: it ended without a result; the job can continue from its newest checkpoint.
        """
        ...
