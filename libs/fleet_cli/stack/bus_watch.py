"""Restarts a nats-server that no longer stores messages although its disk has room again.

After one failed write a stream of nats-server (2.15) stores nothing more until the server is restarted, however
much room the disk has. The other streams keep working, so only the server's `/healthz` shows it: it names the stream.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import structlog

from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.process import Supervised

__all__ = ["BusWatch"]

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two looks."""
PATIENCE = 3
"""Looks in a row at which the server must refuse before it is restarted."""
ROOM = 1024**2
"""Free bytes without which a restart would change nothing."""
REFUSING = ("write error", "not enabled")
"""What `/healthz` reports of a JetStream that stores nothing until a restart; other states pass by themselves."""


class BusWatch:
    """Looks at the server from `start` to `stop`, in a thread of its own."""

    def __init__(self, server: Supervised, port: int, store: Path) -> None:
        self._server = server
        self._url = f"http://{LOOPBACK}:{port}/healthz"
        self._store = store
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bus-watch", daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        refused = 0
        while not self._ended.wait(EVERY):
            fault = self.fault()
            refused = refused + 1 if fault else 0
            if refused >= PATIENCE and shutil.disk_usage(self._store).free >= ROOM and self._restart(fault):
                refused = 0

    def fault(self) -> str:
        """Why the server stores nothing, in its own words; "" while it does, or is unavailable."""
        try:
            with urllib.request.urlopen(self._url, timeout=3):  # noqa: S310 - our own http address
                return ""
        except urllib.error.HTTPError as error:
            reason = _reason(error.read())
            return reason if any(known in reason for known in REFUSING) else ""
        except OSError:
            return ""  # not running: its supervisor's business

    def _restart(self, fault: str) -> bool:
        pid = self._server.pid
        if pid is None:
            return False
        log.warning("restarting nats-server, which stores nothing", reason=fault)
        self.restarts += 1
        try:
            os.kill(pid, self._server.command.stop_signal)  # its supervisor starts it again
        except ProcessLookupError:
            return False
        return True


def _reason(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("error", "")) if isinstance(found, dict) else ""
