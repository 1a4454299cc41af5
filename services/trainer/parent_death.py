"""What every subprocess of the trainer does first: never outlive its supervisor, keep standard output for itself."""

import ctypes
import os
import signal
import sys
import threading
from typing import IO

_PR_SET_PDEATHSIG = 1


def die_with(supervisor: int) -> None:
    """Tie this process to the process id `supervisor`: another worker may take up the work and must not find us at it.

    Standard input must be a pipe that the supervisor holds open and never writes to.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the line above
        os._exit(1)

    def watch() -> None:
        # The pipe ends when the supervisor does, on every system.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def claim_stdout() -> IO[str]:
    """Standard output for our lines alone; what libraries print goes to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours
