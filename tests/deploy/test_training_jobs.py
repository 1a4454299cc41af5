"""The component that makes trainings Jobs of the cluster, on top of an overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

Resource = dict[str, Any]


@pytest.fixture(scope="module")
def resources(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """The production overlay with the component."""
    built = tools.with_component("training-jobs", tmp_path_factory.mktemp("k8s"))
    return [one for one in yaml.safe_load_all(built) if one]


def named(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = (one for one in resources if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def test_every_resource_is_valid_for_kubernetes(resources: list[Resource], tools: Any, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(resources))
    done = tools.run(tools.program("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_trainer_alone_may_make_jobs_and_only_in_its_namespace(resources: list[Resource]) -> None:
    role = named(resources, "Role", "trainer-jobs")
    binding = named(resources, "RoleBinding", "trainer-jobs")
    rights = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert rights == {("jobs", "create"), ("jobs", "delete"), ("jobs/status", "get")}
    (subject,) = binding["subjects"]
    assert (subject["kind"], subject["name"], subject["namespace"]) == ("ServiceAccount", "trainer", "lorafleet")
    assert not [one for one in resources if one["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    tokens = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for one in resources
        if one["kind"] == "Deployment"
    }
    assert [name for name, mounted in tokens.items() if mounted] == ["trainer"]


def test_the_trainer_shares_its_work_volume_with_jobs_and_keeps_a_folder_for_each_pod(
    resources: list[Resource], check_settings: Any
) -> None:
    pod = named(resources, "Deployment", "trainer")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one.get("value", "x") for one in container["env"]}
    env |= {"LORAFLEET_DATABASE_URL": "postgres://x", "LORAFLEET_THREADS": "4", "LORAFLEET_S3_SECURE": "true"}
    env["LORAFLEET_LOG_LEVEL"] = "INFO"
    settings = check_settings("trainer", env)
    assert settings.launcher == "kubernetes"
    (volume,) = (one for one in pod["volumes"] if one["name"] == "cache")
    assert volume["persistentVolumeClaim"]["claimName"] == settings.job_work_claim
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "cache")
    assert mount["mountPath"] == str(settings.job_work_path)
    assert str(settings.cache_dir) == f"{mount['mountPath']}/$(POD_NAME)"
    assert [one["name"] for one in container["env"]].index("POD_NAME") < len(container["env"]) - 1
    claim = named(resources, "PersistentVolumeClaim", settings.job_work_claim)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert settings.job_models_claim in {
        one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one
    }
