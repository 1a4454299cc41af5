"""Settings of the wing that runs jobs."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from fleet_kit import memory as machine_memory
from services.trainer.jobs.settings import JobSettings


class RunSettings(JobSettings):
    """What running a job needs beyond what accepting it needs."""

    base_model: Path
    """Folder of the base model: config.json, *.safetensors, tokenizer."""
    base_model_name: str = ""
    """Name that requests and adapters use for it; empty takes the folder's name."""
    embedding_model: Path | None = None
    """Folder of the router's embedding model. With it an adapter comes with the centroids of its training prompts,
    which the router finds it by; without, with a few example prompts."""
    threads: int = Field(default=0, ge=0)
    """Threads of the training's arithmetic; 0 takes the cores this process may use."""
    memory_bytes: int = Field(default=0, ge=0)
    """Memory that a training may take; 0 takes this process's limit (see fleet_kit.memory), or a Job's."""
    launcher: Literal["local", "kubernetes"] = "local"
    """Where trainings run: as subprocesses of this service, or as Jobs of the Kubernetes cluster that it is in."""
    job_image: str = "lorafleet/torch"
    """Image of such Jobs: this service's own."""
    job_namespace: str = ""
    """Their namespace; empty takes this pod's."""
    job_cpus: int = Field(default=4, ge=1)
    job_memory_bytes: int = Field(default=12 * 2**30, ge=2**30)
    job_gpus: int = Field(default=0, ge=0)
    job_seconds: int = Field(default=24 * 3600, ge=60)
    """Longest time of one attempt as a Job."""
    job_work_claim: str = "lorafleet-work"
    """Claim of a ReadWriteMany volume that is mounted at `job_work_path` here and in the Jobs; `cache_dir` is in it."""
    job_work_path: Path = Path("/var/cache/lorafleet")
    job_models_claim: str = "lorafleet-models"
    """Claim of the volume with the base model, whose folder's parent is where it is mounted."""
    progress_seconds: float = Field(default=10.0, gt=0)
    """Shortest time between two TrainingProgressed events of a job."""
    resume_hours: float = Field(default=24.0, ge=0)
    """Hours for which a failed or cancelled job keeps its checkpoints, so that a retry resumes from them."""
    sweep_seconds: float = Field(default=600.0, gt=0)
    """Time between two looks for what has expired."""
    gc_grace_hours: float = Field(default=24.0, gt=0)
    """Age below which no object is collected, and time that the files of what was let go stay."""
    gc_every_hours: float = Field(default=0.0, ge=0)
    """Time between two collections that nobody asked for; 0: only `lorafleet gc --apply` collects."""
    gc_share: float = Field(default=0.25, gt=0, le=1)
    """Share of the service's objects beyond which a collection deletes nothing until somebody confirms the number."""
    probe_prompt: str = "What can you help me with?"
    """Prompt whose next-token logits prove, at every activation, that an adapter has its effect."""

    @property
    def trained_name(self) -> str:
        return self.base_model_name or self.base_model.name

    @property
    def memory(self) -> int:
        """Bytes that a training may take; 0 where it is not known."""
        if self.memory_bytes:
            return self.memory_bytes
        return self.job_memory_bytes if self.launcher == "kubernetes" else machine_memory.available()

    @property
    def cores(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))
