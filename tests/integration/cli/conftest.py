"""The `lorafleet` command as its own process, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


def run_in(home: Path, *arguments: str, stdin: str = "", timeout: float = 240) -> Ran:
    """`lorafleet ARGUMENTS --home HOME`, with no variable of ours around it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORAFLEET_")}
    done = subprocess.run(
        [sys.executable, "-m", "fleet_cli.app", *arguments, "--home", str(home)],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def example_lines() -> Callable[[str, int], str]:
    """`example_lines("training", 20)`: the first lines of one of the demo's files."""
    folder = Path(__file__).resolve().parents[3] / "examples" / "demo"

    def lines(name: str, count: int) -> str:
        return "".join((folder / f"{name}.jsonl").read_text().splitlines(keepends=True)[:count])

    return lines
