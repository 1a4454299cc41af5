"""Folders of running jobs. Nothing in them outlives its job; what must is in the object store."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder that is removed at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"job-{os.getpid()}-") as name:
        yield Path(name)


def remove_leftovers(parent: Path) -> None:
    """Remove the folders of processes that are gone, or had the id that is ours now."""
    for left in parent.glob("job-*-*"):
        pid = int(left.name.split("-")[1])
        if pid == os.getpid() or not _alive(pid):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
