"""One service on servers that run already: for tests and for work on that service."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from fleet_cli.stack.errors import PartFailed
from fleet_cli.stack.process import Command, Supervised
from fleet_cli.stack.readiness import service_missing
from fleet_kit.forking import ForkServer
from fleet_kit.tls import client_context


class SingleService:
    """A service process with its own address and environment; starts again by itself when it crashes."""

    def __init__(
        self,
        name: str,
        env: Mapping[str, str],
        *,
        logs: Path,
        run: Path,
        fork_server: ForkServer | None = None,
        interpreter: Path | None = None,
    ) -> None:
        """With an `interpreter`, the code that is installed beside that one runs, not ours."""
        self.name = name
        self.env = dict(env)
        scheme = "https" if env.get("LORAFLEET_TLS_CERTIFICATE_FILE") else "http"
        self.url = f"{scheme}://{env['LORAFLEET_HOST']}:{env['LORAFLEET_PORT']}"
        self._trust = client_context(Path(env["LORAFLEET_TLS_CA_FILE"])) if "LORAFLEET_TLS_CA_FILE" in env else None
        label = f"{name}-{env['LORAFLEET_PORT']}"
        arguments = (str(interpreter or sys.executable), "-m", f"services.{name}.app")
        # Python finds modules of the folder that it starts in before those that are installed.
        folder = run if interpreter else None
        command = Command(arguments, environment=self.env, folder=folder, fork_server=fork_server)
        self.process = Supervised(label, command, logs=logs, run=run)

    def start(self, timeout: float = 90.0) -> None:
        """Start it and wait until it is ready. Raises PartFailed with the end of its log."""
        self.process.start()
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Wait until it is ready. Raises PartFailed with the end of its log."""
        deadline = time.monotonic() + timeout
        while reason := service_missing(self.url, self._trust):
            if len(self.process.exits) >= 3 or time.monotonic() > deadline:
                raise PartFailed(f"{self.name} is not ready ({reason}); the end of its log:\n{self.process.tail(40)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as a deployment would: SIGTERM, time to finish."""
        self.process.stop()

    def kill(self) -> int:
        """`kill -9`; it starts again by itself. Returns the process id it had."""
        return self.process.kill()

    def crash(self) -> None:
        """`kill -9` and leave it dead, until `start`."""
        self.process.crash()

    @property
    def log(self) -> str:
        """What it has logged."""
        return self.process.log.read_text(errors="replace")
