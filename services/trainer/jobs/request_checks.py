"""What a training request is checked against: the base model, its layers, and what this machine can do."""

from dataclasses import dataclass, field

from fleet_events import v1
from lora_core import base_model
from lora_core.layer_shapes import LayerShapes
from services.trainer.faults import Fault, InvalidRequest
from services.trainer.jobs import memory_estimate
from services.trainer.jobs.compatibility import asks_for_size, contradictions
from services.trainer.jobs.continuation import Continuation
from services.trainer.jobs.export_checks import check_exports
from services.trainer.jobs.memory_estimate import ModelSize
from services.trainer.jobs.template_check import TemplateCheck
from services.trainer.training.configuration import Configuration, check, resolve
from services.trainer.training.targets import default_targets


@dataclass(frozen=True)
class RequestChecks:
    """The pinned base model, its linear layers, and what this machine can do."""

    base: v1.BaseModel
    shapes: LayerShapes
    quantisation: bool
    max_rank: int = base_model.SLOT_RANK
    """Rank that inference's slots hold."""
    gguf: bool = True
    """Whether adapters of the base model can be written for llama.cpp here."""
    size: ModelSize | None = None
    """What memory is estimated from; None for an architecture whose configuration lacks the numbers."""
    memory: int = 0
    """Bytes that a training may take here; 0 is no bound."""
    template: TemplateCheck = field(default_factory=TemplateCheck)
    """What the base model's chat template can render."""

    @property
    def targets(self) -> tuple[str, ...]:
        """What is adapted where a request names no target modules."""
        return default_targets(self.shapes)

    def examine(self, request: v1.TrainingRequested, continued: Continuation | None = None) -> Configuration:
        """The configuration of a request; raises `InvalidRequest` with every fault it has."""
        configuration, faults = self.faults_of(request, continued)
        if faults:
            raise InvalidRequest(faults)
        return configuration

    def faults_of(
        self, request: v1.TrainingRequested, continued: Continuation | None = None
    ) -> tuple[Configuration, tuple[Fault, ...]]:
        """What a request comes to, and everything that is wrong with it beside this base model and machine."""
        if continued is None:
            configuration = resolve(request.method, request.hyperparameters, request.objective, self.targets)
        else:
            configuration = continued.configure(request)
        faults = [
            *check(configuration, self.shapes, quantisation=self.quantisation, max_rank=self.max_rank),
            *contradictions(request, configuration),
            *check_exports(request, configuration, gguf=self.gguf, shapes=self.shapes),
        ]
        if request.base_model not in ("", self.base.name):
            faults.append(Fault("base_model", request.base_model, f"{self.base.name}, which this trainer trains"))
        if continued is not None:
            faults += continued.faults(request)
        return configuration, tuple(faults)

    def faults_of_size(self, request: v1.TrainingRequested, configuration: Configuration) -> tuple[Fault, ...]:
        """Whether it fits into memory. Checked once, when the job is accepted: later only trying shows more."""
        if self.size is None or not asks_for_size(request):
            return ()
        return memory_estimate.faults(configuration, self.size, self.memory)
