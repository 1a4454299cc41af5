"""What is deployed, as it would reach the cluster or the engine: overlays built, credentials written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet_cli.stack.credentials import Credentials, load_or_create
from fleet_cli.stack.home import Home
from fleet_cli.stack.postgres import postgres_command, postgres_ready
from fleet_cli.stack.process import Supervised
from fleet_kit.settings import BusSettings

REPOSITORY = Path(__file__).resolve().parents[2]
OVERLAYS = ("dev", "staging", "prod")
Resource = dict[str, Any]
Check = Callable[[str, Mapping[str, str]], BusSettings]


def program(name: str) -> str:
    """A tool that the dev extra puts beside the interpreter."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing; `make setup` installs it"
    return found


def run(*arguments: str | Path, **extra: Any) -> subprocess.CompletedProcess[str]:
    """A finished program, its output as text."""
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=120, **extra)


@dataclass(frozen=True)
class Tools:
    """Helpers that the tests share (import mode importlib has no shared modules)."""

    program: Callable[[str], str]
    run: Callable[..., subprocess.CompletedProcess[str]]
    root: Path = REPOSITORY

    def with_component(self, name: str, folder: Path) -> str:
        """The production overlay with a component of k8s/components, as manifests. `folder` takes a copy of k8s."""
        copied = folder / "k8s"
        shutil.copytree(self.root / "k8s", copied)
        kustomization = copied / "overlays" / "prod" / "kustomization.yaml"
        described = yaml.safe_load(kustomization.read_text())
        described.setdefault("components", []).append(f"../../components/{name}")
        kustomization.write_text(yaml.safe_dump(described))
        done = self.run(self.program("kubectl"), "kustomize", kustomization.parent)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools(program, run)


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, tools: Tools) -> tuple[str, list[Resource]]:
    """Name of an overlay and everything that kubectl would send to the cluster."""
    built = run(program("kubectl"), "kustomize", REPOSITORY / "k8s" / "overlays" / request.param)
    assert built.returncode == 0, built.stderr
    assert not built.stderr, built.stderr  # deprecated fields are told there
    return request.param, [one for one in yaml.safe_load_all(built.stdout) if one]


@pytest.fixture(scope="session")
def deployment_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for which `lorafleet credentials write` has run."""
    home = tmp_path_factory.mktemp("deployment") / "home"
    done = run(program("lorafleet"), "credentials", "write", "--home", home)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="session")
def credentials(deployment_home: Path) -> Credentials:
    return load_or_create(Home.open(deployment_home))


@pytest.fixture(scope="session")
def secret_resources(deployment_home: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(kind, name) → content of what `credentials write` makes for Kubernetes."""
    listed = json.loads((deployment_home / "deploy" / "secrets.json").read_text())["items"]
    return {(one["kind"], one["metadata"]["name"]): one.get("stringData") or one["data"] for one in listed}


def _settings_class(service: str) -> type[BusSettings]:
    module = import_module(f"services.{service}.settings")
    (found,) = (
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, BusSettings) and one.__module__ == module.__name__
    )
    return found


@pytest.fixture
def check_settings(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Makes a service's settings of an environment; fails on a variable that the service does not know."""

    def check(service: str, environment: Mapping[str, str]) -> BusSettings:
        wanted = _settings_class(service)
        known = {f"LORAFLEET_{field.upper()}" for field in wanted.model_fields}
        given = {name for name in environment if name.startswith("LORAFLEET_")}
        assert given <= known, f"{service} knows no {', '.join(sorted(given - known))}"
        with monkeypatch.context() as patched:
            for name in known:
                patched.delenv(name, raising=False)
            for name, value in environment.items():
                patched.setenv(name, value)
            return wanted()  # raises where a required one is missing or a value does not fit

    return check


@pytest.fixture
def empty_postgres(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Port and superuser password of a PostgreSQL that has just been made."""
    import time

    from fleet_cli.stack.ports import choose

    home = Home.open(tmp_path / "pg")
    # postgres may run as another user, who has to reach its folder.
    for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path, home.root):
        folder.chmod(0o711)
    port = choose(("postgres",), {})["postgres"]
    server = Supervised("postgres", postgres_command(home, port, "admin-password"), logs=home.logs, run=home.run)
    server.start()
    try:
        deadline = time.monotonic() + 60
        while not postgres_ready(home, port):
            assert time.monotonic() < deadline, server.tail()
            time.sleep(0.05)
        yield port, "admin-password"
    finally:
        server.stop()
