"""Gives up what a program never needs, then becomes it: `python -I -S confine.py BOUNDS PROGRAM [ARGUMENT ...]`.

Standard library alone, started by this file's path. Privileges go first, then files (Landlock: named folders to read,
one to write), then system calls (seccomp: no network, no further process or thread, no signal to others, no change of
modes or owners); limits of memory, processor time, file size and open files are the kernel's too. None of it needs
privileges. A line on the file descriptor that BOUNDS names shows whether all of it holds; where something does not,
the program is not started.

Sources: landlock(7), seccomp(2), capabilities(7), Linux's syscall_64.tbl.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)

CAPSET, LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 126, 444, 445, 446
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG = (1 << bit for bit in (0, 1, 2, 3, 5, 8))
TRUNCATE = 1 << 14
RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many kinds of access to files a version of Landlock governs; 16 from the fifth on."""
NEWEST_CALL = 451
"""System calls behind this one (cachestat, Linux 6.5) are refused: they were not reviewed."""
CLONE3 = 435
"""Refused as unknown, so that the C library reports that it cannot start a thread."""
TGKILL, PRLIMIT64 = 234, 302

REFUSED: dict[str, tuple[int, ...]] = {
    "network": (41, 42, 43, 49, 50, 53, 288),  # socket connect accept bind listen socketpair accept4
    "processes and threads": (56, 57, 58, 272, 308, 109, 112),  # clone fork vfork unshare setns setpgid setsid
    "signals": (62, 200, 129, 297, 424),  # kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal
    "other processes": (101, 310, 311, 312, 434, 438),  # ptrace process_vm_readv/writev kcmp pidfd_open/getfd
    "scheduling": (141, 142, 144, 203, 251, 314),  # of other processes too
    "modes and owners": (90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280),  # chmod, chown, utime and their kin
    "attributes": (188, 189, 190, 197, 198, 199),  # setxattr, removexattr: Landlock does not govern them
    "truncation by path": (76,),  # Landlock does from its third version on
    "shared memory and queues": (29, 64, 68, 240, 319, 447),  # not in the limit of memory
    "keys": (248, 249, 250),
    "mounts": (155, 161, 165, 166, 428, 429, 430, 432, 442),
    "handles": (300, 303, 304),  # fanotify_init, name_to_handle_at, open_by_handle_at: around Landlock
    "kernel": (103, 135, 153, 159, 163, 164, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 227, 246, 298, 313, 320),
    "programmable kernel": (321, 323, 425, 426, 427),  # bpf userfaultfd io_uring: the last opens sockets by itself
}


class NotConfined(Exception):
    """The kernel does not give what confinement takes."""


def main(arguments: list[str]) -> None:
    """Confines this process, reports it, and becomes the program."""
    bounds: dict[str, Any] = json.loads(arguments[0])
    program = arguments[1:]
    report = bounds["report"]
    os.set_inheritable(report, False)
    try:
        _limit(bounds)
        _drop_privileges()
        _restrict_files(bounds["reads"], bounds["lists"], bounds["folder"])
        _restrict_calls()
    except (NotConfined, OSError, ValueError) as error:
        os.write(report, str(error).encode()[:500])
        sys.exit(1)
    os.write(report, b"confined")
    os.execv(program[0], program)  # noqa: S606 - what it becomes is the order


def _limit(bounds: dict[str, Any]) -> None:
    limits = {
        resource.RLIMIT_AS: bounds["memory"],
        resource.RLIMIT_CPU: bounds["processor_seconds"],
        resource.RLIMIT_FSIZE: bounds["file_bytes"],
        resource.RLIMIT_NOFILE: bounds["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        kept = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (kept, kept))


def _drop_privileges() -> None:
    """No capability is left, and no program that is started gains one."""
    _checked("no_new_privs", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused where there is none to drop
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    nothing = ctypes.create_string_buffer(24)
    _checked("capset", LIBC.syscall(CAPSET, header, nothing))


def _restrict_files(reads: list[str], lists: list[str], folder: str) -> None:
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise NotConfined("the kernel has no Landlock (Linux 5.13 or later, among the active security modules)")
    governed = (1 << RIGHTS_OF_ABI.get(version, 16)) - 1
    attributes = ctypes.create_string_buffer(struct.pack("Q", governed))
    ruleset = _checked("landlock_create_ruleset", LIBC.syscall(LANDLOCK_CREATE, attributes, 8, 0))
    for paths, access in ((reads, EXECUTE | READ_FILE | READ_DIR), (lists, READ_DIR)):
        for path in filter(os.path.exists, paths):
            _allow(ruleset, path, access & governed)
    _allow(ruleset, "/dev/null", (READ_FILE | WRITE_FILE) & governed)
    own = READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
    _allow(ruleset, folder, own & governed)
    _checked("landlock_restrict_self", LIBC.syscall(LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            access &= EXECUTE | READ_FILE | WRITE_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, beneath))
        _checked(f"landlock_add_rule for {path}", LIBC.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0))
    finally:
        os.close(beneath)


def _restrict_calls() -> None:
    if platform.machine() != "x86_64":
        raise NotConfined(f"system calls of {platform.machine()} are not known here, only those of x86_64")
    program = _filter(os.getpid())
    code = ctypes.create_string_buffer(program)
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    _checked("seccomp", LIBC.prctl(PR_SET_SECCOMP, 2, described, 0, 0))


def _filter(pid: int) -> bytes:
    """The BPF program: load a word of (nr, architecture, instruction pointer, arguments), compare, return."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, refuse, unknown, end = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
    number, architecture, first_argument = 0, 4, 16
    steps = [
        (load, 0, 0, architecture),
        (equal, 1, 0, 0xC000003E),
        (give, 0, 0, end),
        (load, 0, 0, number),
        (at_least, 0, 1, NEWEST_CALL + 1),
        (give, 0, 0, unknown),
        (equal, 0, 1, CLONE3),
        (give, 0, 0, unknown),
    ]
    for call in (call for calls in REFUSED.values() for call in calls):
        steps += [(equal, 0, 1, call), (give, 0, 0, refuse)]
    # raise() is a tgkill of one's own; limits may be read and lowered, but not those of another process.
    for call, own in ((TGKILL, pid), (PRLIMIT64, 0)):
        steps += [(equal, 0, 4, call), (load, 0, 0, first_argument), (equal, 1, 0, own), (give, 0, 0, refuse)]
        steps += [(give, 0, 0, allow)]
    steps.append((give, 0, 0, allow))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise NotConfined(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
