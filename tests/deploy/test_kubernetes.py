"""Every overlay, built by kubectl: valid, complete, restricted, and without a secret in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet_cli.stack.models import BASE_MODEL_NAME
from fleet_events.topology import KEEPING_OBJECTS, SERVICES, STORING

Resource = dict[str, Any]
Overlay = tuple[str, list[Resource]]
Secrets = dict[tuple[str, str], dict[str, str]]


POD_FIELDS = {"status.podIP": "10.0.3.7", "metadata.name": "inference-5d9c7b-x2x4q"}


def of(resources: list[Resource], kind: str) -> dict[str, Resource]:
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """Kind/name → pod template."""
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["spec"]["template"]
        for one in resources
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}
    }


def containers(pod: Resource) -> list[Resource]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_every_resource_is_valid_for_kubernetes(overlay: Overlay, tools: Any, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(overlay[1]))
    done = tools.run(tools.program("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_all_its_resources_and_agrees_on_its_port(overlay: Overlay, service: str) -> None:
    _, resources = overlay
    for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"):
        assert service in of(resources, kind), f"{kind} {service}"
    pod = of(resources, "Deployment")[service]["spec"]["template"]
    main = pod["spec"]["containers"][0]
    assert main["command"] == ["python", "-m", f"services.{service}.app"]
    assert pod["spec"]["serviceAccountName"] == service
    (port,) = main["ports"]
    (served,) = of(resources, "Service")[service]["spec"]["ports"]
    env = next(one["value"] for one in main["env"] if one["name"] == "LORAFLEET_PORT")
    assert int(env) == port["containerPort"] == served["port"]
    assert served["targetPort"] == port["name"]
    assert main["livenessProbe"]["httpGet"] == main["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert main["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    labels = pod["metadata"]["labels"]
    for kind, path in (
        ("Service", ("selector",)),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
    ):
        selector = of(resources, kind)[service]["spec"]
        for step in path:
            selector = selector[step]
        assert selector.items() <= labels.items(), f"{kind} selects other pods"


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_that_is_stopped_has_the_time_to_complete_what_runs_and_replicas_are_spread(
    overlay: Overlay, service: str
) -> None:
    pod = of(overlay[1], "Deployment")[service]["spec"]["template"]["spec"]
    seconds = {
        one["name"].removeprefix("LORAFLEET_HTTP_"): int(one["value"])
        for one in pod["containers"][0]["env"]
        if one["name"].startswith("LORAFLEET_HTTP_")
    }
    assert seconds.keys() == {"LEAVE_SECONDS", "FINISH_SECONDS"}
    # Unready for two probes: whatever sends requests knows it before the port is closed.
    probe = pod["containers"][0]["readinessProbe"]
    assert seconds["LEAVE_SECONDS"] >= probe["periodSeconds"] * probe["failureThreshold"]
    assert pod["terminationGracePeriodSeconds"] >= sum(seconds.values()) + 10
    spread = {one["topologyKey"] for one in pod["topologySpreadConstraints"]}
    assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_of_every_service_can_be_made_of_what_its_pod_gets(
    overlay: Overlay, service: str, secret_resources: Secrets, check_settings: Any
) -> None:
    _, resources = overlay
    main = of(resources, "Deployment")[service]["spec"]["template"]["spec"]["containers"][0]
    settings = check_settings(service, environment_of(main, resources, secret_resources))
    assert (settings.database_url is not None) == (service in STORING)
    files = {str(settings.nats_seed_file), settings.jwks}
    if service in {"evaluator", "inference"}:
        files.add(str(settings.token_file))
    if service == "trainer":
        files |= {str(one.token_file) for one in settings.generation_endpoints.values()}
    assert files == mounted(overlay[1], service)
    if service in KEEPING_OBJECTS:
        assert settings.s3_secure == settings.s3_endpoint.startswith("https://")


def test_every_pod_of_inference_is_reached_by_the_others_at_its_own_address(
    overlay: Overlay, secret_resources: Secrets
) -> None:
    _, resources = overlay
    main = of(resources, "Deployment")["inference"]["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one for one in main["env"]}
    assert env["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    (port,) = main["ports"]
    assert env["LORAFLEET_REPLICA_URL"]["value"] == f"http://$(POD_IP):{port['containerPort']}"
    assert resolved(env["LORAFLEET_REPLICA"], resources, secret_resources, main) == POD_FIELDS["metadata.name"]


def environment_of(container: Resource, resources: list[Resource], secrets: Secrets) -> dict[str, str]:
    """Variables of a container, those that others name put in."""
    environment: dict[str, str] = {}
    for one in container["env"]:
        value = resolved(one, resources, secrets, container)
        for name, earlier in environment.items():
            value = value.replace(f"$({name})", earlier)
        assert "$(" not in value, f"{one['name']} names a variable that is not defined before it"
        environment[one["name"]] = value
    return environment


def resolved(variable: Resource, resources: list[Resource], secrets: Secrets, container: Resource) -> str:
    """Value of a variable, from wherever it comes; KeyError where that is nowhere."""
    if "value" in variable:
        return str(variable["value"])
    source = variable["valueFrom"]
    if reference := source.get("secretKeyRef"):
        return secrets["Secret", reference["name"]][reference["key"]]
    if reference := source.get("configMapKeyRef"):
        return str(of(resources, "ConfigMap")[reference["name"]]["data"][reference["key"]])
    if reference := source.get("fieldRef"):
        return POD_FIELDS[reference["fieldPath"]]
    assert source["resourceFieldRef"]["resource"] == "limits.cpu"
    return str(container["resources"]["limits"]["cpu"])


def mounted(resources: list[Resource], service: str) -> set[str]:
    """Files of the credentials volume, as the container sees them."""
    pod = of(resources, "Deployment")[service]["spec"]["template"]["spec"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "credentials")
    (mount,) = (one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "credentials")
    sources = [next(iter(source.values())) for source in volume["projected"]["sources"]]
    return {f"{mount['mountPath']}/{item['path']}" for source in sources for item in source["items"]}


def references(pod: Resource) -> Iterator[tuple[str, str, str | None]]:
    """(kind, name, key) of every Secret and ConfigMap that a pod names."""
    for container in containers(pod):
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in source:
                    yield kind, source[field]["name"], source[field]["key"]
        for source in container.get("envFrom", []):
            yield "Secret", source["secretRef"]["name"], None
    for volume in pod["spec"]["volumes"]:
        listed = volume.get("projected", {}).get("sources", [volume])
        for source in listed:
            for field, kind, name in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")):
                if field in source:
                    found = source[field]
                    named = found.get(name) or found["name"]
                    for item in found.get("items", [{}]):
                        yield kind, named, item.get("key")


def test_every_secret_and_config_map_that_is_named_will_be_there(overlay: Overlay, secret_resources: Secrets) -> None:
    _, resources = overlay
    there = dict(secret_resources)
    there |= {("ConfigMap", name): one["data"] for name, one in of(resources, "ConfigMap").items()}
    claims = set(of(resources, "PersistentVolumeClaim"))
    for name, pod in pods(resources).items():
        for kind, named, key in references(pod):
            assert (kind, named) in there, f"{name} wants {kind} {named}"
            assert key is None or key in there[kind, named], f"{name} wants {key} of {kind} {named}"
        for volume in pod["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims, name


def test_a_pod_gets_no_secret_of_another(overlay: Overlay) -> None:
    _, resources = overlay
    for service in SERVICES:
        pod = of(resources, "Deployment")[service]["spec"]["template"]
        assert {name for kind, name, _ in references(pod) if kind == "Secret"} == {f"lorafleet-{service}"}


def test_no_secret_is_committed(overlay: Overlay) -> None:
    assert not of(overlay[1], "Secret")


def test_every_container_is_restricted_bounded_and_pinned(overlay: Overlay) -> None:
    _, resources = overlay
    for name, pod in pods(resources).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        # A Service named like a variable's prefix would otherwise inject LORAFLEET_… of its own.
        assert spec["enableServiceLinks"] is False, name
        for container in containers(pod):
            where = f"{name}: {container['name']}"
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
            assert "memory" in container["resources"]["limits"], where
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            assert tag not in {"", "latest"}, f"{where} has image {container['image']}"
            mounts = {one["name"] for one in container.get("volumeMounts", [])}
            assert mounts <= {one["name"] for one in [*spec["volumes"], {"name": "data"}]}, where


def test_nothing_may_connect_unless_a_policy_says_so(overlay: Overlay) -> None:
    _, resources = overlay
    policies = of(resources, "NetworkPolicy")
    denied = policies["default-deny"]["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for service in SERVICES:
        ports = {p["port"] for rule in policies[service]["spec"]["egress"] for p in rule["ports"]}
        assert (5432 in ports) == (service in STORING), service
        assert 4222 in ports
    calls = (("trainer", "inference"), ("evaluator", "inference"), ("inference", "router"), ("inference", "inference"))
    for caller, called in calls:
        target = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": called}}}
        assert any(target in rule.get("to", []) for rule in policies[caller]["spec"]["egress"])
        source = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": caller}}}
        assert any(source in rule["from"] for rule in policies[called]["spec"]["ingress"])


def test_the_bus_is_reached_by_labelled_namespaces_and_its_monitoring_port_by_others(overlay: Overlay) -> None:
    name, resources = overlay
    if name != "dev":
        return  # the servers are not ours
    ports = {one["name"]: (one["port"], one["targetPort"]) for one in of(resources, "Service")["nats"]["spec"]["ports"]}
    assert ports == {"main": (4222, "main"), "monitor": (8222, "monitor")}
    may: dict[int, list[Resource]] = {
        rule["ports"][0]["port"]: rule["from"] for rule in of(resources, "NetworkPolicy")["nats"]["spec"]["ingress"]
    }
    assert may == {
        4222: [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"lorafleet.io/access": "true"}}}],
        8222: [{"namespaceSelector": {"matchLabels": {"lorafleet.io/monitoring": "true"}}}],
    }


def test_a_service_that_stores_migrates_its_own_schema_before_it_starts(overlay: Overlay) -> None:
    for service in SERVICES:
        pod = of(overlay[1], "Deployment")[service]["spec"]["template"]["spec"]
        scripts = [one["args"][0] for one in pod.get("initContainers", []) if one["name"] == "migrate"]
        assert len(scripts) == (service in STORING)
        for script in scripts:
            compile(script, "migrate", "exec")
            assert f'migrate("{service}"' in script


def test_streams_are_replicated_in_production_alone(overlay: Overlay) -> None:
    name, resources = overlay
    arguments = of(resources, "Job")["provision"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == ["--replicas", "3" if name == "prod" else "1"]


@pytest.mark.requirement("AS-10.1")
def test_inference_takes_the_defaults_of_its_environment_and_its_cache_fits_its_volume(
    overlay: Overlay, secret_resources: Secrets, check_settings: Any
) -> None:
    name, resources = overlay
    pod = of(resources, "Deployment")["inference"]["spec"]["template"]["spec"]
    main = pod["containers"][0]
    settings = check_settings("inference", environment_of(main, resources, secret_resources))
    assert settings.environment == {"dev": "development", "staging": "staging", "prod": "production"}[name]
    (volume,) = [one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if one["name"] == "cache"]
    assert settings.cache_bytes < int(volume.removesuffix("Gi")) * 1024**3


def test_overlays_differ_in_servers_levels_and_replicas(overlay: Overlay) -> None:
    name, resources = overlay
    replicas = {service: of(resources, "Deployment")[service]["spec"]["replicas"] for service in SERVICES}
    (config,) = (one["data"] for key, one in of(resources, "ConfigMap").items() if key.startswith("lorafleet-"))
    assert (config["LORAFLEET_LOG_LEVEL"] == "DEBUG") == (name == "dev")
    assert set(of(resources, "StatefulSet")) == ({"nats", "postgres", "minio"} if name == "dev" else set())
    assert (min(replicas.values()) > 1) == (name == "prod")
    assert ("models" in of(resources, "Job")) == (name != "prod")
    # Where k8s/components/models/prepare.py puts them.
    assert config["LORAFLEET_BASE_MODEL"] == f"/models/{BASE_MODEL_NAME}"
    assert config["LORAFLEET_EMBEDDING_MODEL"] == "/models/all-MiniLM-L6-v2"
