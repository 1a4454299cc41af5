"""The folder of one fleet: where everything lies, who may read it, and that only one stack runs on it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fleet_cli.stack.errors import AlreadyRunning, StackError

DEFAULT = Path(".lorafleet")


def default_home() -> Path:
    """`$LORAFLEET_HOME`, or `.lorafleet` in the current folder."""
    return Path(os.environ.get("LORAFLEET_HOME") or DEFAULT)


@dataclass(frozen=True)
class Home:
    """Paths below one home folder. Every folder has mode 0700, every file with a secret 0600."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Home:
        """Create what is missing and close the folder to others. Raises StackError if it cannot be written."""
        home = cls(root.expanduser().resolve())
        try:
            for folder in (home.root, *home.folders()):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.root.chmod(0o700)
        except OSError as error:
            raise StackError(f"cannot use {root} as home ({error}); set LORAFLEET_HOME to a folder of yours") from error
        return home

    def folders(self) -> tuple[Path, ...]:
        """The folders that always exist, except postgres/, whose owner is another user when we run as root."""
        return (self.nats, self.s3, self.models, self.keys, self.tokens, self.logs, self.cache, self.run)

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def s3(self) -> Path:
        return self.root / "s3"

    @property
    def models(self) -> Path:
        """`$LORAFLEET_MODELS` when set: several homes can then share one converted base model."""
        shared = os.environ.get("LORAFLEET_MODELS")
        return Path(shared).expanduser().resolve() if shared else self.root / "models"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def run(self) -> Path:
        """Process ids of running parts, so that the next start finds what a killed stack left behind."""
        return self.root / "run"

    @property
    def fleet_file(self) -> Path:
        return self.root / "fleet.json"

    def lock(self) -> IO[str]:
        """Hold the folder for this process until the returned file is closed. Raises AlreadyRunning."""
        handle = (self.root / "lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            handle.close()
            raise AlreadyRunning(
                f"process {owner} already runs the stack in {self.root}; stop it or set another LORAFLEET_HOME"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        return handle


def write_secret(path: Path, content: str) -> None:
    """Write a file that its owner alone can read; it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(content)
    partial.replace(path)


def write_secret_json(path: Path, content: Mapping[str, Any]) -> None:
    """`write_secret` of a JSON object."""
    write_secret(path, json.dumps(content, indent=2) + "\n")
