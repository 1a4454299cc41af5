"""Trainings as Kubernetes Jobs, submitted through the cluster's API and followed on a shared volume."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog
import urllib3.exceptions
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from services.trainer.runs.launchers.manifest import JobTemplate, job_name, manifest
from services.trainer.runs.settings import RunSettings
from services.trainer.runs.supervisor import TrainingCrashed
from services.trainer.training.protocol import Progress, TrainingSpec, read_line

T = TypeVar("T")
log = structlog.get_logger()

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_GONE, _CONFLICT = 404, 409
_CALL_SECONDS = 10


class KubernetesLauncher:
    """Runs each training as one Job of the cluster.

    Two workers never have Jobs of one training at the same time: a Job's name follows from the job's id, and a launch
    begins by deleting what is there of that name and waiting until its pods are gone.
    """

    def __init__(
        self,
        jobs: client.BatchV1Api,
        template: JobTemplate,
        *,
        poll_seconds: float = 0.5,
        status_seconds: float = 5.0,
        gone_seconds: float = 120.0,
    ) -> None:
        self._jobs = jobs
        self._template = template
        self._poll_seconds = poll_seconds
        self._status_seconds = status_seconds
        self._gone_seconds = gone_seconds

    @classmethod
    def in_cluster(cls, settings: RunSettings) -> "KubernetesLauncher":
        """With the service account of this pod; raises `ConfigException` outside of a cluster."""
        config.load_incluster_config()  # type: ignore[no-untyped-call]
        template = JobTemplate(
            namespace=settings.job_namespace or _NAMESPACE.read_text().strip(),
            image=settings.job_image,
            cpus=settings.job_cpus,
            memory_bytes=settings.job_memory_bytes,
            gpus=settings.job_gpus,
            seconds=settings.job_seconds,
            work_claim=settings.job_work_claim,
            models_claim=settings.job_models_claim,
            cache=settings.job_work_path,
            models=settings.base_model.parent,
        )
        return cls(client.BatchV1Api(), template)

    async def launch(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        """See `Launcher.launch`.

        Raises:
            TrainingCrashed: the Job failed, ran out of time or vanished.
            TimeoutError: an earlier Job of this training does not end.
        """
        processes, name = spec.configuration.processes, job_name(spec.job_id)
        threads = max(1, self._template.cpus // processes)
        spec_file, progress = spec.work / "spec.json", spec.work / "progress.jsonl"
        spec_file.write_text(spec.model_copy(update={"threads": threads}).model_dump_json())
        progress.touch()
        body = manifest(self._template, spec.job_id, spec_file, progress, processes=processes)
        await self._remove(name)
        await self._until_gone(name)
        try:
            await self._call(self._jobs.create_namespaced_job, self._template.namespace, body)
            async for message in self._follow(name, progress):
                yield message
        finally:
            await asyncio.shield(self._remove(name))

    async def _follow(self, name: str, progress: Path) -> AsyncGenerator[Progress, None]:
        """What the file gets, line by line, until the Job has ended."""
        looked, ended, pending = time.monotonic(), None, b""
        with progress.open("rb") as file:
            while True:
                # Read behind the look at the Job: what it wrote before it ended is in the file by then.
                *lines, pending = (pending + file.read()).split(b"\n")
                for line in lines:
                    yield read_line(line)
                if ended is not None:
                    if ended:
                        raise TrainingCrashed(1, ended)
                    return
                await asyncio.sleep(self._poll_seconds)
                if time.monotonic() - looked >= self._status_seconds:
                    ended, looked = await self._ended(name), time.monotonic()

    async def _ended(self, name: str) -> str | None:
        """None while the Job runs, an empty text once it is complete, else why it is not."""
        try:
            found = await self._call(self._jobs.read_namespaced_job_status, name, self._template.namespace)
        except ApiException as error:
            if error.status == _GONE:
                return f"Job {name} was deleted"
            log.warning("kubernetes_job_not_read", name=name, reason=f"{error.status} {error.reason}")
            return None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            log.warning("kubernetes_job_not_read", name=name, reason=repr(error))
            return None
        for condition in (found.status and found.status.conditions) or []:
            if condition.status == "True" and condition.type == "Complete":
                return ""
            if condition.status == "True" and condition.type == "Failed":
                return f"Job {name} failed: {condition.reason or 'unknown'} {condition.message or ''}".strip()
        return None

    async def _remove(self, name: str) -> None:
        """Ask for the Job's end. It stays readable until its pods are gone (foreground deletion)."""
        options = client.V1DeleteOptions(propagation_policy="Foreground")
        try:
            await self._call(self._jobs.delete_namespaced_job, name, self._template.namespace, body=options)
        except ApiException as error:
            if error.status not in (_GONE, _CONFLICT):
                raise OSError(f"Job {name} not deleted: {error.status} {error.reason}") from error

    async def _until_gone(self, name: str) -> None:
        deadline = time.monotonic() + self._gone_seconds
        while True:
            try:
                await self._call(self._jobs.read_namespaced_job_status, name, self._template.namespace)
            except ApiException as error:
                if error.status == _GONE:
                    return
                raise OSError(f"Job {name} not read: {error.status} {error.reason}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"Job {name} of an earlier attempt is not gone after {self._gone_seconds:g} s")
            await asyncio.sleep(self._poll_seconds)

    @staticmethod
    async def _call(method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return await asyncio.to_thread(method, *arguments, _request_timeout=_CALL_SECONDS, **named)
