"""docs/operations.md names only what exists."""

from __future__ import annotations

import re
from typing import Any

import pytest
from typer.testing import CliRunner

from fleet_cli.app import root


@pytest.fixture(scope="module")
def page(tools: Any) -> str:
    return (tools.root / "docs" / "operations.md").read_text()


def test_every_metric_that_is_named_is_one_that_the_code_keeps(page: str, tools: Any) -> None:
    named = set(re.findall(r"`(lorafleet_[a-z_]+)", page))
    kept = set()
    for folder in ("libs/fleet_kit", "services"):
        for path in (tools.root / folder).rglob("*.py"):
            kept |= set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(lorafleet_[a-z_]+)"', path.read_text()))
    assert named == kept


def test_every_path_that_is_named_exists(page: str, tools: Any) -> None:
    paths = set(re.findall(r"\b(?:k8s|services)/[\w./-]+\w", page))
    assert len(paths) >= 3
    for path in paths:
        assert (tools.root / path).exists(), path


def test_every_command_that_is_named_has_a_help_page(page: str) -> None:
    commands = set(
        re.findall(r"\blorafleet ((?:[a-z]+)(?: (?:write|nats-config|list|show|replay|mint|tail))?)\b", page)
    )
    assert "credentials write" in commands
    for command in commands:
        done = CliRunner().invoke(root.typer, [*command.split(), "--help"])
        assert done.exit_code == 0, f"lorafleet {command}: {done.output}"
