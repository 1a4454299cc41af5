"""Components that an overlay may take: what scales, watches, ranks and places the services, and where their Secrets come from.

The resources of operators are held here against what they name; `make check-crds` holds them against the operators' schemas.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet_events.topology import SERVICES, consumers_of, durable_name
from tests.deploy.promql import labels, metrics_of, named

Resource = dict[str, Any]
NAMES = ("keda", "hpa", "pod-monitor", "priorities", "gpu", "external-secrets")
OF_OPERATORS = {"ScaledObject", "PodMonitor", "ExternalSecret"}


@pytest.fixture(scope="module")
def with_component(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Resource]]:
    """The production overlay with a component; each is built once."""
    built: dict[str, list[Resource]] = {}

    def build(name: str) -> list[Resource]:
        if name not in built:
            manifests = tools.with_component(name, tmp_path_factory.mktemp(name))
            built[name] = [one for one in yaml.safe_load_all(manifests) if one]
        return built[name]

    return build


def of(resources: list[Resource], kind: str) -> dict[str, Resource]:
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


def pod(resources: list[Resource], service: str) -> Resource:
    found: Resource = of(resources, "Deployment")[service]["spec"]["template"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_kubernetes_knows_of_a_component_is_valid(
    name: str, with_component: Any, tools: Any, tmp_path: Path
) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all([one for one in with_component(name) if one["kind"] not in OF_OPERATORS]))
    done = tools.run(tools.program("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_service_is_scaled_by_durables_of_its_own_and_by_a_metric_that_is_kept(
    with_component: Any, tools: Any
) -> None:
    resources = with_component("keda")
    scaled = of(resources, "ScaledObject")
    assert scaled.keys() == {"registry", "trainer", "evaluator", "inference"}
    durables = {(name, row.stream.name, durable_name(one, row)) for name in SERVICES for row, one in consumers_of(name)}
    (config,) = (one["data"] for key, one in of(resources, "ConfigMap").items() if key.startswith("lorafleet-"))
    server = config["LORAFLEET_NATS_URL"].removeprefix("nats://").partition(":")[0]
    metrics = metrics_of(tools.root)
    for name, one in scaled.items():
        spec = one["spec"]
        assert spec["scaleTargetRef"] == {"name": name}
        assert 0 < spec["minReplicaCount"] < spec["maxReplicaCount"]
        for trigger in spec["triggers"]:
            read = trigger["metadata"]
            if trigger["type"] == "nats-jetstream":
                assert (name, read["stream"], read["consumer"]) in durables
                assert (read["natsServerMonitoringEndpoint"], read["account"]) == (f"{server}:8222", "FLEET")
                assert int(read["lagThreshold"]) > 0
            else:
                assert (name, trigger["type"]) == ("inference", "prometheus")
                (metric,) = named(read["query"])
                assert labels(read["query"]) <= metrics[metric]


def test_the_router_is_scaled_by_a_part_of_the_processor_time_that_its_container_may_take(with_component: Any) -> None:
    resources = with_component("hpa")
    (scaled,) = of(resources, "HorizontalPodAutoscaler").values()
    spec = scaled["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "router"}
    assert 1 < spec["minReplicas"] < spec["maxReplicas"], "an update leaves one that answers"
    (metric,) = spec["metrics"]
    read = metric["containerResource"]
    containers = {one["name"]: one for one in pod(resources, "router")["spec"]["containers"]}
    limit = containers[read["container"]]["resources"]["limits"][read["name"]]
    assert 0 < _cores(read["target"]["averageValue"]) < _cores(limit)
    assert "router" not in of(with_component("keda"), "ScaledObject"), (
        "two autoscalers of one Deployment undo each other"
    )


def _cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


def test_every_service_is_read_by_the_pod_monitor_and_no_job_is(with_component: Any) -> None:
    resources = with_component("pod-monitor")
    spec = of(resources, "PodMonitor")["lorafleet"]["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    templates = {
        one["metadata"]["name"]: one["spec"]["template"] for one in resources if one["kind"] in {"Deployment", "Job"}
    }
    chosen = {name for name, template in templates.items() if wanted <= template["metadata"]["labels"].items()}
    assert chosen == set(SERVICES)
    (endpoint,) = spec["podMetricsEndpoints"]
    for name in chosen:
        ports = [port["name"] for port in templates[name]["spec"]["containers"][0]["ports"]]
        annotations = templates[name]["metadata"]["annotations"]
        assert endpoint["port"] in ports
        assert endpoint["path"] == annotations["prometheus.io/path"]


def test_answers_go_before_decisions_and_those_before_trainings(with_component: Any) -> None:
    resources = with_component("priorities")
    classes = of(resources, "PriorityClass")
    rank = {name: classes[pod(resources, name)["spec"]["priorityClassName"]]["value"] for name in SERVICES}
    assert rank["inference"] == rank["router"] > rank["registry"] == rank["evaluator"] > rank["trainer"] > 0
    assert classes["lorafleet-training"]["preemptionPolicy"] == "Never"


def test_what_computes_gets_a_gpu_and_nothing_else_does(with_component: Any) -> None:
    resources = with_component("gpu")
    for name in SERVICES:
        spec = pod(resources, name)["spec"]
        wanted = spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert (wanted == "1") == ("nodeSelector" in spec) == (name in {"inference", "trainer"})
        assert ("tolerations" in spec) == (wanted == "1")


def test_an_external_store_gives_every_secret_that_a_service_reads(
    with_component: Any, secret_resources: dict[tuple[str, str], dict[str, str]]
) -> None:
    resources = with_component("external-secrets")
    made = {one["spec"]["target"]["name"]: one["spec"] for one in of(resources, "ExternalSecret").values()}
    assert made.keys() == {f"lorafleet-{name}" for name in SERVICES}
    assert {("Secret", name) for name in made} <= secret_resources.keys()
    for name in SERVICES:
        (source,) = made[f"lorafleet-{name}"]["dataFrom"]
        assert source == {"extract": {"key": f"lorafleet/{name}"}} | source
        assert made[f"lorafleet-{name}"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "lorafleet"}


CHECK = """
import { readFileSync } from "node:fs";
const kinds = {
  ScaledObject: (await import("@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject")).ScaledObject,
  PodMonitor: (await import("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor")).PodMonitor,
  ExternalSecret: (await import("@kubernetes-models/external-secrets/external-secrets.io/v1/ExternalSecret")).ExternalSecret,
};
for (const one of JSON.parse(readFileSync(0))) new kinds[one.kind](one).validate();
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "kind"), [("keda", "ScaledObject"), ("pod-monitor", "PodMonitor"), ("external-secrets", "ExternalSecret")]
)
def test_the_resources_of_operators_are_valid_by_their_schemas(name: str, kind: str, with_component: Any) -> None:
    """`make check-crds` installs the schemas as an npm package brings them."""
    folder = os.environ.get("LORAFLEET_CRDS")
    if folder is None:
        pytest.skip("LORAFLEET_CRDS is not set: make check-crds sets it")

    def validated(resources: list[Resource]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", "--input-type=module", "--eval", CHECK],
            cwd=folder, input=json.dumps(resources), capture_output=True, text=True, check=False,
        )  # fmt: skip

    found = list(of(with_component(name), kind).values())
    done = validated(found)
    assert done.returncode == 0, done.stderr
    broken = json.loads(json.dumps(found[0]))
    broken["spec"] |= {"selector": 1, "triggers": 1, "refreshInterval": 1}
    assert validated([broken]).returncode != 0
