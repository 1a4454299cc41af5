"""A folder of this process for what it receives and fetches; the next start removes those of killed processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "lorafleet-registry-"
_UNLOCKED_SECONDS = 3600.0  # a folder without a lock is one that is being made, or what a kill left of that


class Scratch:
    """Holds a lock in its folder for as long as the process lives: a process that gets the lock may remove it."""

    def __init__(self, under: Path | None) -> None:
        """under: where the folder is made, None for the system's place. Blocking."""
        root = (under or Path(tempfile.gettempdir())).resolve()
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        self._lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            yield Path(name)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process was faster, or it is another user's
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if not (folder / "lock").exists():
                if time.time() - folder.stat().st_mtime > _UNLOCKED_SECONDS:
                    shutil.rmtree(folder)
                continue
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
