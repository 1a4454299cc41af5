"""The manifest of a training Job: valid for Kubernetes, restricted, without credentials."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.trainer.runs.launchers.manifest import JobTemplate, job_name, manifest

pytestmark = pytest.mark.unit

DEPLOYMENT = Path(__file__).parents[3] / "k8s" / "base" / "trainer" / "deployment.yaml"
TEMPLATE = JobTemplate(
    namespace="lorafleet",
    image="registry.example.org/lorafleet/torch:0.1.0",
    cpus=4,
    memory_bytes=8 * 2**30,
    gpus=0,
    seconds=3600,
    work_claim="lorafleet-work",
    models_claim="lorafleet-models",
    cache=Path("/var/cache/lorafleet"),
    models=Path("/models"),
)
WORK = Path("/var/cache/lorafleet/trainer-1/job-7-x")


def rendered(template: JobTemplate = TEMPLATE, processes: int = 1, job_id: str = "job:1") -> dict[str, Any]:
    return manifest(template, job_id, WORK / "spec.json", WORK / "progress.jsonl", processes=processes)


@pytest.mark.parametrize("processes", [1, 4])
def test_the_manifest_is_valid_for_kubernetes(processes: int, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(rendered(replace(TEMPLATE, gpus=processes), processes)))
    program = Path(sys.executable).parent / "kubernetes-validate"
    done = subprocess.run([program, "--strict", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_is_as_restricted_as_the_service_and_has_neither_token_nor_credentials() -> None:
    service = yaml.safe_load(DEPLOYMENT.read_text())["spec"]["template"]["spec"]
    pod = rendered()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == service["securityContext"]
    assert container["securityContext"] == service["containers"][0]["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert {one["name"] for one in container["env"]} <= {
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "TOKENIZERS_PARALLELISM",
    }
    assert not [one for one in pod["volumes"] if "secret" in one or "projected" in one or "hostPath" in one]
    assert "envFrom" not in container


def test_a_job_runs_once_for_a_bounded_time_and_is_swept_away() -> None:
    job = rendered()["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert job["activeDeadlineSeconds"] == 3600
    assert 0 < job["ttlSecondsAfterFinished"] <= 3600
    container = job["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": str(8 * 2**30)}


def test_what_it_reads_and_writes_is_on_its_volumes() -> None:
    container = rendered()["spec"]["template"]["spec"]["containers"][0]
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert mounts["/models"]["readOnly"] is True
    assert container["command"][:3] == ["python", "-m", "services.trainer.training"]
    for file in (container["command"][3], container["command"][5]):
        assert Path(file).is_relative_to("/var/cache/lorafleet")


def test_several_processes_share_the_cores_of_one_job() -> None:
    container = rendered(processes=2)["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][container["command"].index("--num_processes") + 1] == "2"
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in container["env"]


def test_a_jobs_name_follows_from_its_id_of_any_form() -> None:
    names = {job_name(one) for one in ("job:1", "job-1", "Job_1." * 16)}
    assert len(names) == 3
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() and name.islower() for name in names)
    assert rendered()["metadata"]["annotations"] == {"lorafleet.io/job": "job:1"}
