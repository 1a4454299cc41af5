"""Training an adapter further: what the new job takes from the old one, and what must be the same."""

import json
from dataclasses import dataclass, replace
from typing import Self

from fleet_events import v1
from services.trainer.faults import Fault, InvalidRequest
from services.trainer.training.configuration import Configuration, resolve


@dataclass(frozen=True)
class Continuation:
    """An adapter to begin from.

    `weights` is its adapter_model.safetensors, `config` the adapter_config.json beside it. What decides the shape and
    the meaning of these weights (`method`, `rank`, `alpha`, `target_modules`, `layers`) cannot change on the way.
    """

    continued_from: str
    """As the request named it: an adapter's id or a job's."""
    job_id: str
    weights: v1.Blob
    config: v1.Blob
    method: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    layers: int | None

    @classmethod
    def of(cls, continued_from: str, made: v1.TrainingCompleted, base: v1.BaseModel) -> Self:
        """The adapter that a job made, to be trained further on the base model that this trainer has.

        Raises:
            InvalidRequest: it was made for other weights of the base model.
        """
        if made.base_model != base:
            expected = (
                f"an adapter of {base.name} at revision {base.revision[:12]}, which this trainer trains; this one is "
                f"of {made.base_model.name} at {made.base_model.revision[:12]}"
            )
            raise InvalidRequest((Fault("continue_from", continued_from, expected),))
        trained = json.loads(made.configuration)
        return cls(
            continued_from=continued_from,
            job_id=made.job_id,
            weights=made.checkpoint,
            config=made.checkpoint_config,
            method=made.method,
            rank=int(trained["rank"]),
            alpha=float(trained["alpha"]),
            target_modules=tuple(trained["target_modules"]),
            layers=trained.get("layers"),
        )

    def configure(self, request: v1.TrainingRequested) -> Configuration:
        """What a request for more training comes to: inherited where it is silent."""
        requested = request.hyperparameters or v1.Hyperparameters()
        inherited = requested.model_copy(
            update={
                "rank": self.rank,
                "alpha": self.alpha,
                "target_modules": self.target_modules,
                "layers": self.layers,
            }
        )
        return replace(resolve(self.method, inherited, request.objective), continue_from=self.weights.sha256)

    def faults(self, request: v1.TrainingRequested) -> tuple[Fault, ...]:
        """Where the request describes another adapter than the one it continues."""
        requested = request.hyperparameters or v1.Hyperparameters()
        faults: list[Fault] = []

        def compare(field: str, wanted: object, present: object) -> None:
            if wanted not in (None, "", ()) and wanted != present:
                expected = f"{present!r}, as {self.continued_from} has it, or no value"
                faults.append(Fault(field, wanted, expected))

        compare("method", request.method, self.method)
        compare("hyperparameters.rank", requested.rank, self.rank)
        compare("hyperparameters.alpha", requested.alpha, self.alpha)
        targets = tuple(sorted(set(requested.target_modules)))
        compare("hyperparameters.target_modules", targets, tuple(sorted(self.target_modules)))
        compare("hyperparameters.layers", requested.layers, self.layers)
        return tuple(faults)
