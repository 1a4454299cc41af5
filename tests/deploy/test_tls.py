"""The component that gives deployed services TLS, on top of an overlay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

SERVICES = ("registry", "trainer", "evaluator", "router", "inference", "console")


@pytest.fixture(scope="module")
def built(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The production overlay with the component, as manifests."""
    return str(tools.with_component("tls", tmp_path_factory.mktemp("k8s")))


def pods(built: str) -> dict[str, dict[str, Any]]:
    manifests = [one for one in yaml.safe_load_all(built) if one and one["kind"] in {"Deployment", "Job"}]
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in manifests}


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


def test_every_resource_is_valid_for_kubernetes(built: str, tools: Any, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(built)
    done = tools.run(tools.program("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_serves_the_certificate_of_the_secret_and_is_probed_over_tls(built: str, service: str) -> None:
    pod = pods(built)[service]
    container = pod["containers"][0]
    folder = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}["tls"]
    found = variables(pod)
    assert [found[f"LORAFLEET_TLS_{name}_FILE"] for name in ("CERTIFICATE", "KEY", "CA")] == [
        f"{folder}/tls.crt",
        f"{folder}/tls.key",
        f"{folder}/ca.crt",
    ]
    probes = [container[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "liveness", "readiness")]
    assert probes == ["HTTPS"] * 3


def test_migrations_and_the_provision_job_have_the_authority(built: str) -> None:
    migrating = [pod["initContainers"][0] for name, pod in pods(built).items() if name in SERVICES[:4]]
    for container in (*migrating, pods(built)["provision"]["containers"][0]):
        assert "tls" in [one["name"] for one in container["volumeMounts"]]
    assert variables(pods(built)["provision"])["LORAFLEET_TLS_CA_FILE"] == "/run/tls/ca.crt"


def test_no_service_calls_another_in_the_clear(built: str) -> None:
    for name in SERVICES:
        assert [value for value in variables(pods(built)[name]).values() if "http://" in value] == []
    endpoints = variables(pods(built)["trainer"])["LORAFLEET_GENERATION_ENDPOINTS"]
    assert json.loads(endpoints)["inference"]["url"] == "https://inference:8105/v1"
