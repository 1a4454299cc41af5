"""Becomes another program, after tying it to the life of the stack. Standard library only: it runs before everything.

    python -I -S launch.py '{"parent": 123, "signal": 9, "uid": null, "gid": null}' PROGRAM ARGUMENT...

The kernel sends `signal` to the program when its parent dies (prctl PR_SET_PDEATHSIG), however the parent dies.
With a `uid` the program runs as that user: PostgreSQL refuses to run as root. A fork hook could do this too, but
running Python between fork and exec in a process with threads can deadlock.
"""

import ctypes
import json
import os
import sys

PR_SET_PDEATHSIG = 1
PR_CAPBSET_READ = 23
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    plan = json.loads(sys.argv[1])
    if plan["uid"] is not None:
        _become(plan["uid"], plan["gid"])
    if sys.platform == "linux":  # after the change of user, which clears it; elsewhere the next start tidies up
        _libc.prctl(PR_SET_PDEATHSIG, plan["signal"], 0, 0, 0)
    if os.getppid() != plan["parent"]:  # it died before this check
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - this is what it is for


def _become(uid: int, gid: int) -> None:
    """Give up root, but keep the right to walk through folders that only root may enter.

    The home folder and often the virtual environment lie below folders with mode 0700. Opening those to everybody
    would be worse than this one capability.
    """
    candidates = (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if sys.platform == "linux" else ()
    kept = next((one for one in candidates if _libc.prctl(PR_CAPBSET_READ, one, 0, 0, 0) == 1), None)
    if kept is not None:
        _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if kept is None:
        return
    bits = 1 << kept
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable of capabilities 0-31, then of 32-63
    sets = (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)
    if _libc.capset(header, sets) == 0:
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept, 0, 0)


if __name__ == "__main__":
    main()
