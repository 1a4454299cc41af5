"""What the fleet depends on: pinned, with the hashes of its files, and held against advisories."""

import json
import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def pinned(tools: Any) -> dict[str, tuple[str, int]]:
    """Name → version and number of hashes."""
    entries = re.split(r"\n(?=\S)", (tools.root / "constraints.txt").read_text())
    found = {}
    for entry in entries:
        name, version = re.match(r"([\w.-]+)==(\S+)", entry).groups()
        found[_canonical(name)] = version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
    return found


def test_every_pinned_package_has_hashes(pinned: dict[str, tuple[str, int]]) -> None:
    assert len(pinned) > 100
    assert [name for name, (_, hashes) in pinned.items() if not hashes] == []


def test_what_is_installed_is_what_is_pinned(pinned: dict[str, tuple[str, int]]) -> None:
    """torch is pinned in pyproject.toml, since a machine chooses its build; CUDA parts come with it."""
    free = {"lorafleet", "pip", "wheel", "torch", "triton"}
    installed = {_canonical(one.metadata["Name"]): one.version for one in distributions()}
    names = {name for name in installed if not name.startswith(("nvidia-", "cuda-"))} - free
    assert {name: installed[name] for name in names} == {name: pinned.get(name, ("missing",))[0] for name in names}


def test_torch_is_pinned_to_one_version(tools: Any) -> None:
    project = tomllib.loads((tools.root / "pyproject.toml").read_text())["project"]
    wanted = {one for extra in project["optional-dependencies"].values() for one in extra if one.startswith("torch")}
    assert wanted == {"torch==2.13.0"}
    assert '"torch==2.13.0"' in (tools.root / "Makefile").read_text()


def test_the_dependencies_of_extras_include_those_of_the_extras_they_name(tools: Any) -> None:
    done = tools.run(tools.root / "scripts" / "dependencies", "trainer")
    listed = {re.split(r"[><=\[]", line)[0] for line in done.stdout.split()}
    assert {"asyncpg", "transformers", "pyarrow", "trl"} <= listed
    assert not {"torch", "lorafleet", "pytest", "schemathesis"} & listed


@pytest.mark.parametrize(
    ("affected", "found"),
    [
        ({"versions": ["1.0", "2.5"]}, True),
        ({"versions": ["2.4"]}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.6"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.5"}]}]}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "2"}, {"last_affected": "2.5"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "2"}, {"last_affected": "2.4"}]}]}, False),
    ],
)
def test_an_advisory_that_affects_a_pinned_version_fails_the_audit(
    affected: dict[str, Any], found: bool, tools: Any, tmp_path: Path
) -> None:
    advisories, constraints = tmp_path / "advisories", tmp_path / "constraints.txt"
    advisories.mkdir()
    constraints.write_text("Some_Package==2.5 \\\n    --hash=sha256:0\n")
    package = {"package": {"ecosystem": "PyPI", "name": "some.package"}}
    advisory = {"id": "PYSEC-1", "aliases": ["CVE-1"], "affected": [package | affected]}
    (advisories / "one.json").write_text(json.dumps(advisory))
    done = tools.run(tools.program("python"), tools.root / "scripts" / "audit", advisories, constraints)
    assert done.returncode == int(found), done.stderr
    assert ("some-package==2.5: PYSEC-1 CVE-1" in done.stdout) == found


def test_a_folder_without_advisories_is_no_clean_audit(tools: Any, tmp_path: Path) -> None:
    done = tools.run(tools.program("python"), tools.root / "scripts" / "audit", tmp_path)
    assert done.returncode == 2


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_bill_of_materials_has_the_locks_digests_and_refuses_what_is_not_locked(tools: Any, tmp_path: Path) -> None:
    """torch has none: which build of it a machine takes is the machine's choice."""
    component = {"type": "library", "purl": "pkg:pypi/x@1", "licenses": [{"license": {"id": "MIT"}}]}
    named = [component | {"name": name, "version": "2.5"} for name in ("Some.Package", "torch")]
    bill, constraints = tmp_path / "sbom.json", tmp_path / "constraints.txt"
    bill.write_text(json.dumps({"components": named}))

    def completed(lock: str) -> Any:
        constraints.write_text(f"{lock} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n")
        return tools.run(tools.program("python"), tools.root / "scripts" / "sbom", bill, constraints)

    assert completed("some-package==2.5").returncode == 0
    one, torch = json.loads(bill.read_text())["components"]
    (files,) = one["externalReferences"]
    assert [digest["content"] for digest in files["hashes"]] == ["0" * 64, "1" * 64]
    assert "externalReferences" not in torch
    refused = completed("some-package==2.6")
    assert (refused.returncode, refused.stdout.strip()) == (1, "some-package is 2.5, the lock has 2.6")
    bill.write_text(json.dumps({"components": [component | {"name": "nowhere", "version": "1", "licenses": []}]}))
    assert completed("some-package==2.5").stdout.strip() == "nowhere names no licence"
