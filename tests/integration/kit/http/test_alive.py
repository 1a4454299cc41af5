"""The health check of the images: `python -m fleet_kit.alive`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet_cli.stack.certificates import load_or_create_certificates
from fleet_cli.stack.home import Home
from fleet_kit.auth import LocalIssuer
from tests.integration.kit.http.conftest import Doors, serving_with

pytestmark = pytest.mark.integration


def checked(**variables: str) -> int:
    command = (sys.executable, "-m", "fleet_kit.alive")
    return subprocess.run(command, env={"PATH": "/usr/bin", **variables}, capture_output=True, check=False).returncode


def test_a_service_is_alive_once_it_answers_and_not_before(running: Doors) -> None:
    assert checked(LORAFLEET_PORT=str(running.port)) == 0
    assert checked(LORAFLEET_PORT="9") != 0


def test_a_service_with_a_certificate_is_looked_at_over_tls(issuer: tuple[LocalIssuer, Path], tmp_path: Path) -> None:
    made = load_or_create_certificates(Home.open(tmp_path / "home"))
    files = {"LORAFLEET_TLS_CERTIFICATE_FILE": str(made.certificate), "LORAFLEET_TLS_KEY_FILE": str(made.key)}
    with serving_with(issuer, tmp_path, files, made.trust) as doors:
        assert checked(LORAFLEET_PORT=str(doors.port), **files) == 0
        assert checked(LORAFLEET_PORT=str(doors.port)) != 0  # in the clear


def test_a_container_without_a_port_serves_nothing_that_could_be_dead() -> None:
    assert checked() == 0
