"""The running trainer: its settings, what requests are checked against, and where and as whom it trains."""

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
from services.trainer.jobs.memory_estimate import ModelSize
from services.trainer.jobs.request_checks import RequestChecks
from services.trainer.jobs.template_check import TemplateCheck
from services.trainer.runs.launchers import Launcher
from services.trainer.runs.launchers.local import LocalLauncher
from services.trainer.settings import TrainerSettings
from services.trainer.work_folder import remove_leftovers


@dataclass(frozen=True)
class TrainerParts:
    """What the trainer opens at its start."""

    checks: RequestChecks
    launcher: Launcher = field(default_factory=LocalLauncher)
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Names this process in a job's history."""
    builds: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Places for builds of data sets."""


TrainerService: TypeAlias = Service[TrainerSettings, TrainerParts]
Trainer = Annotated[TrainerService, Depends(dependency(TrainerService))]


@asynccontextmanager
async def open_parts(service: TrainerService) -> AsyncIterator[TrainerParts]:
    """Read the base model's digest and shapes; the weights stay on disk."""
    await asyncio.to_thread(remove_leftovers, service.settings.cache_dir)
    yield TrainerParts(
        await _request_checks(service.settings),
        launcher=launcher_of(service.settings),
        builds=asyncio.Semaphore(service.settings.build_workers),
    )


async def _request_checks(settings: TrainerSettings) -> RequestChecks:
    folder = settings.base_model
    revision = await asyncio.to_thread(base_model.revision, folder)
    shapes = await asyncio.to_thread(base_model.linear_shapes, folder)
    return RequestChecks(
        v1.BaseModel(name=settings.trained_name, revision=revision),
        shapes,
        quantisation=find_spec("bitsandbytes") is not None,
        max_rank=settings.max_rank,
        gguf=await asyncio.to_thread(_llama_cpp_knows, folder),
        size=ModelSize.of(json.loads(await asyncio.to_thread((folder / "config.json").read_bytes)), shapes),
        memory=settings.memory,
        template=await asyncio.to_thread(TemplateCheck.of, folder),
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
