"""The wall clock of one process, moved while it runs, by a library that is preloaded (`shifted_clock.c`).

Not by libfaketime: where it leaves the monotonic clock alone, Python's `time.sleep` fails with EINVAL once the time was moved
(0.9.10). Programs in Go ask the kernel without the C library and keep their time.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_cli.stack.process import Command

_SOURCE = Path(__file__).with_suffix(".c")


class ShiftedClock:
    """A clock in a file. Everybody who may read its folder can go by it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / name
        self._library = folder / "clock.so"
        if not self._library.exists():
            if (compiler := shutil.which("cc")) is None:
                pytest.skip("moving a clock needs a C compiler")
            subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE)], check=True)
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)

    def shift(self, seconds: int) -> None:
        """Show a time that is this much later than the right one, from now on."""
        with self._file.open("r+b") as file:  # in place: the process has it in its memory
            file.write(struct.pack("=q", seconds))

    def shown_to(self, command: Command) -> Command:
        """The command of a process that goes by this clock."""
        variables = {"LD_PRELOAD": str(self._library), "LORAFLEET_TEST_CLOCK": str(self._file)}
        return replace(command, environment={**command.environment, **variables}, fork_server=None)
