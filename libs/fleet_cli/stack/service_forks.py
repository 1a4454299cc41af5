"""The fork servers that services start from: one without torch, and from it one with, and one for the console."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from fleet_cli.stack.environment import LIBRARIES
from fleet_events.topology import CONSOLE
from fleet_kit.forking import ForkServer, NoForkServer

_LIGHT = ("registry", "evaluator", "trainer")
WITH_TORCH = ("router", "inference")
_MODELS = ("transformers.modeling_utils",)
"""What loading a base model imports, whichever it is."""


class ServiceForks:
    """Made when first used; on Linux alone."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._lock = threading.Lock()
        self._light: ForkServer | None = None
        self._with_torch: ForkServer | None = None
        self._console: ForkServer | None = None

    def prepare(self, *services: str) -> None:
        """Import what these services need, so that their start does not wait for it."""
        for service in services:
            self.of(service)

    def of(self, service: str) -> ForkServer | None:
        """The fork server that has imported this service; None where there is none, and it imports for itself."""
        if sys.platform != "linux":
            return None
        environment = {**os.environ, **LIBRARIES}
        with self._lock, suppress(NoForkServer):
            if self._light is None:
                modules = ["fleet_cli.lean_clients", *(f"services.{name}.app" for name in _LIGHT)]
                self._light = ForkServer(modules, environment, log=self._logs / "forks.log")
            if service in _LIGHT:
                return self._light
            if service == CONSOLE:
                # Apart: the client library and the templates are nothing that the others need.
                if self._console is None:
                    modules = ["services.console.app"]
                    self._console = ForkServer(modules, environment, log=self._logs / "forks.log", of=self._light)
                return self._console
            if self._with_torch is None:
                modules = [*(f"services.{name}.app" for name in WITH_TORCH), *_MODELS]
                self._with_torch = ForkServer(modules, environment, log=self._logs / "forks.log", of=self._light)
            return self._with_torch
        return None

    def close(self) -> None:
        """End them, and all that they forked."""
        for server in (self._console, self._with_torch, self._light):
            if server is not None:
                server.close()
        self._light = self._with_torch = self._console = None
