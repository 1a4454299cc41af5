"""A training as a Kubernetes Job: the manifest, from the settings and one spec. Pure."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.runs.launchers.local import distributed

_USER = 10001  # the image's; files on the shared volume belong to it
_GRACE_SECONDS = 5
_KEPT_SECONDS = 600
_PORT = 29500


@dataclass(frozen=True)
class JobTemplate:
    """What all training Jobs of an installation have in common.

    `cache` is where the volume claim `work_claim` (ReadWriteMany) is mounted in this service and in every Job;
    `models` where `models_claim` is, read-only. `seconds` is the longest a training may take.
    """

    namespace: str
    image: str
    cpus: int
    memory_bytes: int
    gpus: int
    seconds: int
    work_claim: str
    models_claim: str
    cache: Path
    models: Path


def job_name(job_id: str) -> str:
    """The Job's name (RFC 1123, which job ids need not keep): the same for every attempt, so that two cannot run."""
    return f"train-{hashlib.sha256(job_id.encode()).hexdigest()[:20]}"


def manifest(template: JobTemplate, job_id: str, spec: Path, progress: Path, *, processes: int) -> dict[str, Any]:
    """A batch/v1 Job that trains what the file `spec` describes and writes its progress to a file.

    It has no credentials, no token and, under the base's default-deny policy, no network. It never restarts: what
    happens after a failure is decided by the service, from the newest checkpoint.
    """
    launcher = distributed(processes, python="python", port=_PORT) if processes > 1 else ("python",)
    labels = {
        "app.kubernetes.io/name": "training",
        "app.kubernetes.io/part-of": "lorafleet",
        "app.kubernetes.io/component": "training",
    }
    gpus = {"nvidia.com/gpu": str(template.gpus)} if template.gpus else {}
    resources = {"cpu": str(template.cpus), "memory": str(template.memory_bytes), **gpus}
    threads = str(max(1, template.cpus // processes))
    container = {
        "name": "training",
        "image": template.image,
        "command": [
            *launcher,
            *("-m", "services.trainer.training", str(spec), "--progress", str(progress)),
        ],
        "env": [
            {"name": "OMP_NUM_THREADS", "value": threads},
            {"name": "MKL_NUM_THREADS", "value": threads},
            {"name": "HF_HUB_OFFLINE", "value": "1"},
            {"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"},
            {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
        ],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "work", "mountPath": str(template.cache)},
            {"name": "models", "mountPath": str(template.models), "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": template.work_claim}},
            {"name": "models", "persistentVolumeClaim": {"claimName": template.models_claim, "readOnly": True}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(job_id),
            "namespace": template.namespace,
            "labels": labels,
            "annotations": {"lorafleet.io/job": job_id},
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": template.seconds,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
