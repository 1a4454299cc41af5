"""Training an adapter further: what the new job takes from the old one, and what must be the same."""

from dataclasses import dataclass, replace

from fleet_events import v1
from services.trainer.training.configuration import Configuration, Fault, resolve


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

    def configure(self, request: v1.TrainingRequested) -> Configuration:
        """What a request for more training comes to: inherited where it is silent."""
        asked = request.hyperparameters or v1.Hyperparameters()
        inherited = asked.model_copy(
            update={
                "rank": self.rank,
                "alpha": self.alpha,
                "target_modules": self.target_modules,
                "layers": self.layers,
            }
        )
        return replace(resolve(self.method, inherited, request.objective), continue_from=self.weights.sha256)

    def faults(self, request: v1.TrainingRequested) -> tuple[Fault, ...]:
        """Where the request asks for another adapter than the one it wants to continue."""
        asked = request.hyperparameters or v1.Hyperparameters()
        faults: list[Fault] = []

        def compare(field: str, wanted: object, present: object) -> None:
            if wanted not in (None, "", ()) and wanted != present:
                expected = f"{present!r}, as {self.continued_from} has it, or nothing at all"
                faults.append(Fault(field, wanted, expected))

        compare("method", request.method, self.method)
        compare("hyperparameters.rank", asked.rank, self.rank)
        compare("hyperparameters.alpha", asked.alpha, self.alpha)
        targets = tuple(sorted(set(asked.target_modules)))
        compare("hyperparameters.target_modules", targets, tuple(sorted(self.target_modules)))
        compare("hyperparameters.layers", asked.layers, self.layers)
        return tuple(faults)
