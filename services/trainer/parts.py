"""The running trainer: its settings, and what it knows of its base model."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, TypeAlias

from fastapi import Depends

from fleet_events import v1
from fleet_kit.http import dependency
from fleet_kit.service import Service
from lora_core import base_model
from lora_core.description import LayerShapes
from services.trainer.jobs import memory_estimate
from services.trainer.jobs.compatibility import asks_for_size, contradictions
from services.trainer.jobs.continuation import Continuation
from services.trainer.jobs.export_checks import check_exports
from services.trainer.jobs.memory_estimate import ModelSize
from services.trainer.jobs.template_check import TemplateCheck
from services.trainer.runs.launchers import Launcher
from services.trainer.runs.launchers.local import LocalLauncher
from services.trainer.settings import TrainerSettings
from services.trainer.training.configuration import Configuration, Fault, InvalidRequest, check, resolve
from services.trainer.training.targets import default_targets
from services.trainer.work_folder import remove_leftovers


@dataclass(frozen=True)
class Workshop:
    """What jobs are made from: the pinned base model, its linear layers, and what this machine can do."""

    base: v1.BaseModel
    shapes: LayerShapes
    quantisation: bool
    max_rank: int = base_model.SLOT_RANK
    """Rank that inference's slots hold."""
    gguf: bool = True
    """Whether adapters of the base model can be written for llama.cpp here."""
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Names this process in a job's history."""
    launcher: Launcher = field(default_factory=LocalLauncher)
    size: ModelSize | None = None
    """What memory is estimated from; None for an architecture whose configuration does not tell."""
    memory: int = 0
    """Bytes that a training may take here."""
    template: TemplateCheck = field(default_factory=TemplateCheck)
    """What the base model's chat template can render."""
    builds: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Places for builds of data sets."""

    @property
    def targets(self) -> tuple[str, ...]:
        """What is adapted where a request names no target modules."""
        return default_targets(self.shapes)

    def examine(self, request: v1.TrainingRequested, continued: Continuation | None = None) -> Configuration:
        """The configuration a request asks for; raises `InvalidRequest` with every fault it has."""
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
        """Whether it fits into memory. Asked once, when the job is accepted: later only trying tells more."""
        if self.size is None or not asks_for_size(request):
            return ()
        return memory_estimate.faults(configuration, self.size, self.memory)


TrainerService: TypeAlias = Service[TrainerSettings, Workshop]
Trainer = Annotated[TrainerService, Depends(dependency(TrainerService))]


@asynccontextmanager
async def open_workshop(service: TrainerService) -> AsyncIterator[Workshop]:
    """Read the base model's digest and shapes; the weights stay on disk."""
    await asyncio.to_thread(remove_leftovers, service.settings.cache_dir)
    folder = service.settings.base_model
    revision = await asyncio.to_thread(base_model.revision, folder)
    shapes = await asyncio.to_thread(base_model.linear_shapes, folder)
    base = v1.BaseModel(name=service.settings.trained_name, revision=revision)
    gguf = await asyncio.to_thread(_llama_cpp_knows, folder)
    yield Workshop(
        base,
        shapes,
        quantisation=find_spec("bitsandbytes") is not None,
        max_rank=service.settings.max_rank,
        gguf=gguf,
        launcher=launcher_of(service.settings),
        size=ModelSize.of(json.loads(await asyncio.to_thread((folder / "config.json").read_bytes)), shapes),
        memory=service.settings.memory,
        template=await asyncio.to_thread(TemplateCheck.of, folder),
        builds=asyncio.Semaphore(service.settings.build_workers),
    )


def launcher_of(settings: TrainerSettings) -> Launcher:
    """Where the settings want trainings to run."""
    if settings.launcher == "local":
        return LocalLauncher()
    from services.trainer.runs.launchers.kubernetes import KubernetesLauncher

    return KubernetesLauncher.in_cluster(settings)


def _llama_cpp_knows(folder: Path) -> bool:
    from lora_core import UnsupportedAdapter
    from lora_core.interop.gguf import architecture_of

    try:
        architecture_of(json.loads((folder / "config.json").read_bytes()))
    except UnsupportedAdapter:
        return False
    return find_spec("gguf") is not None
