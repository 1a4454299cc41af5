"""compose.yaml: valid for the compose specification, complete, and each service gets what its settings ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet_events.topology import KEEPING_OBJECTS, SERVICES, STORING

SERVERS = {"nats", "postgres", "minio"}
ONCE = {"nats-config", "postgres-roles", "bucket", "provision", "models"}


@pytest.fixture(scope="module")
def compose(tools: Any) -> dict[str, Any]:
    return yaml.safe_load((tools.root / "compose.yaml").read_text())


def env_file(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def interpolated(text: str, variables: dict[str, str]) -> str:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as compose does it."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match["name"], match["operator"], match["rest"]
        if name in variables:
            return variables[name]
        assert operator == ":-", f"{name} is not set"
        return rest

    return re.sub(r"\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<rest>[^}]*))?\}", value, text)


def test_compose_is_valid(tools: Any) -> None:
    path = tools.root / "compose.yaml"
    done = tools.run(tools.program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_has_every_service_every_server_and_what_prepares_them(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*SERVICES, *SERVERS, *ONCE}


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_of_every_service_can_be_made_of_what_compose_gives(
    compose: dict[str, Any], service: str, deployment_home: Path, check_settings: Any
) -> None:
    entry = compose["services"][service]
    variables = env_file(deployment_home / "deploy" / "compose.env")
    environment: dict[str, str] = {}
    for path in entry["env_file"]:
        environment |= env_file(Path(interpolated(path, variables)))
    environment |= {name: interpolated(str(value), variables) for name, value in entry["environment"].items()}
    settings = check_settings(service, environment)
    assert settings.host == "0.0.0.0"
    assert entry["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert f":{settings.port}/readyz" in entry["healthcheck"]["test"][-1]
    assert entry["command"] == ["python", "-m", f"services.{service}.app"]
    assert (settings.database_url is not None) == (service in STORING)
    (source,) = (volume.rsplit(":", 2)[0] for volume in entry["volumes"] if ":/run/lorafleet" in volume)
    folder = Path(interpolated(source, variables))
    needed = {str(settings.nats_seed_file), settings.jwks} | ({str(settings.token_file)} - {"None"})
    needed |= {str(one.token_file) for one in getattr(settings, "generation_endpoints", {}).values()}
    assert {f"/run/lorafleet/{path.name}" for path in folder.iterdir()} == needed


@pytest.mark.parametrize("service", SERVICES)
def test_services_call_each_other_where_compose_runs_them(compose: dict[str, Any], service: str) -> None:
    for name, value in compose["services"][service]["environment"].items():
        if name.endswith("_URL") and str(value).startswith("http://"):
            host, port = str(value).removeprefix("http://").split(":")
            assert compose["services"][host]["environment"]["LORAFLEET_PORT"] == port


def test_nothing_starts_before_what_it_depends_on(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, entry in services.items():
        for needed, how in entry.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{name} waits for {needed}, which has no health check"
            else:
                assert needed in ONCE, f"{name} waits for the end of {needed}"
    for service in SERVICES:
        needed = services[service]["depends_on"].keys()
        assert "provision" in needed
        assert ("bucket" in needed) == (service in KEEPING_OBJECTS)
        assert ("models" in needed) == (service not in {"evaluator", "console"})
    assert services["provision"]["depends_on"].keys() == {"nats", "postgres-roles"}


def test_services_are_restricted_and_published_on_loopback_only(compose: dict[str, Any]) -> None:
    for name, entry in compose["services"].items():
        for published in entry.get("ports", []):
            assert published.startswith("127.0.0.1:"), name
        if name in SERVICES:
            assert entry["read_only"] is True
            assert entry["cap_drop"] == ["ALL"]
            assert "10001" in entry["user"]


def test_every_volume_and_file_that_is_mounted_exists(
    compose: dict[str, Any], tools: Any, deployment_home: Path
) -> None:
    variables = env_file(deployment_home / "deploy" / "compose.env")
    for name, entry in compose["services"].items():
        for volume in entry.get("volumes", []):
            source = interpolated(volume, variables).split(":")[0]
            if source.startswith("/"):
                assert Path(source).exists(), f"{name}: {source}"
            elif source.startswith("./"):
                assert (tools.root / source).exists(), f"{name}: {source}"
            else:
                assert source in compose["volumes"], f"{name}: {source}"


def test_compose_holds_no_secret(compose: dict[str, Any]) -> None:
    for entry in compose["services"].values():
        for name, value in entry.get("environment", {}).items():
            assert not re.search(r"PASSWORD|SECRET|ACCESS_KEY|DATABASE_URL", name), f"{name}={value}"


def test_compose_and_kubernetes_run_the_same_servers(compose: dict[str, Any], tools: Any) -> None:
    manifests = "".join(path.read_text() for path in (tools.root / "k8s/components/servers").rglob("*.yaml"))
    for name in (*SERVERS, "bucket"):
        assert f"image: {compose['services'][name]['image']}\n" in manifests, name
