"""A confined program cannot get out: each test tries one way, and would leave something behind if it could."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from services.evaluator.sandbox import confine, sandbox
from services.evaluator.sandbox.sandbox import Ended, Limits, SandboxUnavailable, Stopped


async def run(code: str, **limits: float) -> Ended:
    program = [sys.executable, "-I", "-S", "-c", code]
    return await sandbox.run(program, b"given", Limits(**limits), sandbox.interpreter_folders())  # type: ignore[arg-type]


async def test_a_confined_program_reads_its_input_writes_in_its_folder_and_prints() -> None:
    ended = await run("import sys; open('a', 'w').write(sys.stdin.read()); print(open('a').read())")
    assert ended == Ended(0, b"given\n", b"")


async def test_this_machine_confines() -> None:
    assert await sandbox.why_unavailable() == ""


REFUSED = {
    "a connection": "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)",
    "a datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "a unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a raw call for a socket": "import ctypes\nif ctypes.CDLL(None).syscall(41, 2, 1, 0) < 0: raise OSError",
    "a ring that opens sockets": "import ctypes\nif ctypes.CDLL(None).syscall(425, 4, bytes(120)) < 0: raise OSError",
    "a process": "import os; os.fork() or os._exit(0)",
    "a program": "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'])",
    "a thread": "import threading; threading.Thread(target=print).start()",
    "a session of its own": "import os; os.setsid()",
    "a signal to the service": "import os; os.kill({pid}, 0)",
    "a lower limit for the service": "import resource; resource.prlimit({pid}, resource.RLIMIT_NOFILE, (8, 8))",
    "a file elsewhere": "open({outside!r}, 'w')",
    "a link out of its folder": "import os; os.symlink({outside!r}, 'link'); open('link', 'w')",
    "a folder": "import os; os.mkdir('sub')",
    "a change of modes elsewhere": "import os; os.chmod({secret!r}, 0o777)",
    "a truncation elsewhere": "import os; os.truncate({secret!r}, 0)",
    "a removal elsewhere": "import os; os.remove({secret!r})",
    "a secret of the service": "open({secret!r}).read()",
    "the service's environment": "open('/proc/{pid}/environ').read()",
    "its own environment through proc": "open('/proc/self/environ').read()",
    "the list of users": "open('/etc/passwd').read()",
    "a file without a name": "import os; os.memfd_create('x')",
    "a mount": "import ctypes\nif ctypes.CDLL(None).syscall(165, b'none', b'/tmp', b'tmpfs', 0, 0) < 0: raise OSError",
    "a namespace": "import ctypes\nif ctypes.CDLL(None).syscall(272, 0x10000000) < 0: raise OSError",
    "more open files": "held = [open('f', 'w') for _ in range(200)]",
    "more memory": "held = b'x' * (900 << 20)",
    "more memory than its limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "a system call of the future": "import ctypes\nif ctypes.CDLL(None).syscall(999) < 0: raise OSError",
}


@pytest.mark.requirement("LA-3.2")
@pytest.mark.parametrize("what", REFUSED)
async def test_a_confined_program_gets_no(what: str, tmp_path: Path) -> None:
    secret, outside = tmp_path / "secret", tmp_path / "outside"
    secret.write_text("key")
    mode = secret.stat().st_mode
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = {"port": server.getsockname()[1], "pid": os.getpid(), "secret": str(secret), "outside": str(outside)}
        body = REFUSED[what].format(**asked) if "{" in REFUSED[what] else REFUSED[what]
        code = "print('before', flush=True)\n" + body + "\nprint('after')"
        ended = await run(code)
    assert (ended.status, ended.output) == (1, b"before\n"), ended.errors
    assert ended.errors.splitlines()[-1].startswith(
        (b"PermissionError", b"OSError", b"RuntimeError", b"MemoryError", b"ValueError")
    )
    assert (secret.read_text(), secret.stat().st_mode, outside.exists()) == ("key", mode, False)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: print('x' * 9999)", "printed more than 64000 bytes"),
        ("import sys\nwhile True: sys.stderr.write('x' * 9999)", "printed more than 64000 bytes"),
        ("while True: pass", "did not end within 1.5 s"),
        ("import time; time.sleep(60)", "did not end within 1.5 s"),
        ("import os\nfor n in range(99):\n with open(str(n), 'wb') as f: f.write(bytes(1 << 20)), f.flush()\nwhile True: pass", "wrote more than"),
        ("for n in range(999): open(str(n), 'w').close()\nwhile True: pass", "wrote more than"),
    ],
)  # fmt: skip
async def test_a_program_that_takes_too_much_is_ended_and_the_limit_named(code: str, why: str) -> None:
    with pytest.raises(Stopped, match=why):
        await run(code, seconds=1.5)


async def test_one_file_grows_to_its_limit_at_most() -> None:
    ended = await run("f = open('f', 'wb')\nwhile True: f.write(bytes(1 << 20))", folder_mb=2)
    assert ended.status != 0
    assert b"File too large" in ended.errors or ended.status == -25  # SIGXFSZ


async def test_a_bomb_of_forks_is_one_process_that_fails() -> None:
    bomb = "import os\nleft = 0\nfor _ in range(1000):\n try: os.fork()\n except OSError: left += 1\nprint(left)"
    assert (await run(bomb)).output == b"1000\n"


async def test_a_program_gets_none_of_the_services_environment_and_no_open_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAFLEET_DATABASE_URL", "postgres://secret")
    ended = await run("import os; print('LORAFLEET_DATABASE_URL' in os.environ, os.environ['HOME'] == os.getcwd())")
    assert ended.output == b"False True\n"
    count = "import os\ndef is_open(n):\n try: os.fstat(n)\n except OSError: return False\n return True\n"
    assert (await run(count + "print([n for n in range(60) if is_open(n)])")).output == b"[0, 1, 2]\n"


async def test_its_folder_is_gone_afterwards() -> None:
    ended = await run("import os; open('left', 'w').close(); print(os.getcwd())")
    with pytest.raises(FileNotFoundError):
        os.stat(ended.output.strip())


@pytest.fixture
def weaker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel whose Landlock calls are unknown."""
    text = Path(confine.__file__).read_text()
    calls = "LANDLOCK_RESTRICT = 126, 444, 445, 446"
    assert calls in text
    (tmp_path / "confine.py").write_text(text.replace(calls, "LANDLOCK_RESTRICT = 126, 999, 999, 999"))
    monkeypatch.setattr(sandbox, "_CONFINE", tmp_path / "confine.py")


async def test_where_the_kernel_does_not_confine_nothing_is_run(weaker: None, tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="the kernel has no Landlock"):
        await run(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "no Landlock" in await sandbox.why_unavailable()
    assert os.listdir(tmp_path) == ["confine.py"]
