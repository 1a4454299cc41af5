"""A low priority on the cores: what the trainer's subprocesses compute waits for answers of the same machine."""

import contextlib
import os
from pathlib import Path

NICE = 10
"""A tenth of the weight of a process of normal priority, where both want the same core; all of it where none does."""
_AUTOGROUP = Path("/proc/self/autogroup")


def lower() -> None:
    """Lower the priority of this process and of all that it starts; for its first thread, before it has others.

    Linux weighs sessions against each other where nothing else groups processes (autogroup), and then the nice value
    counts within a session alone: the session gets the same one. The subprocess must lead a session of its own.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without it, or a read-only /proc
            _AUTOGROUP.write_text(str(NICE))
