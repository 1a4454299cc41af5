"""Settings of the trainer."""

import os
import tempfile
from pathlib import Path

from pydantic import Field

from fleet_kit.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """What training needs beyond what every service needs (environment prefix ``LORAFLEET_``)."""

    port: int = 8102
    base_model: Path
    """Folder of the base model: config.json, *.safetensors, tokenizer."""
    base_model_name: str = ""
    """Name that requests and adapters use for it; empty takes the folder's name."""
    cache_dir: Path = Path(tempfile.gettempdir())
    """Where running jobs keep their files; nothing in it is needed after a crash."""
    threads: int = Field(default=0, ge=0)
    """Threads of the training's arithmetic; 0 takes the cores this process may use."""
    progress_seconds: float = Field(default=10.0, gt=0)
    """Shortest time between two TrainingProgressed events of a job."""
    flush_seconds: float = Field(default=1.0, gt=0)
    """Time between two writes of what a job logged."""
    patience_seconds: float = Field(default=300.0, gt=0)
    """How long a running job waits for the database or the object store before it is given back to the queue."""
    probe_prompt: str = "What can you help me with?"
    """Prompt whose next-token logits prove, at every activation, that an adapter has its effect."""

    @property
    def trained_name(self) -> str:
        return self.base_model_name or self.base_model.name

    @property
    def cores(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))
