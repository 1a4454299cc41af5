"""One supervised child process: started, restarted when it crashes, stopped in order, never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from fleet_cli.stack.errors import PartFailed
from fleet_kit.forking import Forked, ForkServer, NoForkServer

_LAUNCHER = str(Path(__file__).with_name("launch.py"))
_FIRST_PAUSE, _LONGEST_PAUSE, _STABLE_AFTER = 0.25, 10.0, 30.0


@dataclass(frozen=True)
class Command:
    """What to run. `owner` is (uid, gid) to run as, None for our own user.

    With `fork_server`, `arguments` are `python -m MODULE ...`, and it runs the module as long as it is there.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    owner: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace: float = 10.0
    """Seconds between `stop_signal` and SIGKILL."""
    fork_server: ForkServer | None = None


class Supervised:
    """Keeps one command running from `start` to `stop`.

    One thread a process: the kernel's parent-death signal follows the *thread* that forked, so that thread must live
    as long as the process does.
    """

    def __init__(self, name: str, command: Command, *, logs: Path, run: Path) -> None:
        self.name = name
        self.command = command
        self.log = logs / f"{name}.log"
        self._pid_file = run / f"{name}.json"
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._wake = threading.Event()
        self._spawned = threading.Event()
        self._lock = threading.Lock()
        self.exits: list[int] = []
        """Exit codes of crashes since `start`; negative is a signal."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._wanted.is_set():
            return
        self.exits.clear()
        self._wake.clear()
        self._spawned.clear()
        self._wanted.set()
        self._thread = threading.Thread(target=self._keep_running, daemon=True)
        self._thread.start()
        self._spawned.wait()

    def stop(self) -> None:
        """Ask it to stop, kill it when it does not, and wait until it and all it started are gone."""
        with self._lock:  # so that nothing is spawned after this
            self._wanted.clear()
            self._wake.set()
            process = self._process
        if process is not None and process.poll() is None:
            self._send(process.pid, self.command.stop_signal)
            try:
                process.wait(self.command.stop_grace)
            except subprocess.TimeoutExpired:
                self._send(process.pid, signal.SIGKILL)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def kill(self) -> int:
        """`kill -9`, as a crash would be: the supervisor starts it again. Returns the process id it had."""
        pid = self.pid
        if pid is None:
            raise PartFailed(f"{self.name} is not running, so it cannot be killed")
        os.kill(pid, signal.SIGKILL)
        return pid

    def crash(self) -> None:
        """`kill -9`, and no restart until `start`."""
        with self._lock:
            self._wanted.clear()
            self._wake.set()
            process = self._process
        if process is not None and process.poll() is None:
            self._send(process.pid, signal.SIGKILL)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        try:
            content = self.log.read_bytes()[-20_000:]
        except OSError:
            return ""
        return "\n".join(content.decode(errors="replace").splitlines()[-lines:])

    def _keep_running(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            with self._lock:
                if not self._wanted.is_set():
                    break
                try:
                    process = self._spawn()
                finally:
                    self._spawned.set()
            code = process.wait()
            self._end_group(process.pid)
            if not self._wanted.is_set():
                break
            self.exits.append(code)
            pause = _FIRST_PAUSE if time.monotonic() - began > _STABLE_AFTER else min(pause * 2, _LONGEST_PAUSE)
            self._note(f"exited with {code}, starts again in {pause:.1f} s")
            self._wake.wait(pause)
        self._pid_file.unlink(missing_ok=True)

    def _spawn(self) -> subprocess.Popen[bytes] | Forked:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = self._forked(descriptor) or self._executed(descriptor)
        finally:
            os.close(descriptor)
        self._process = process
        self._pid_file.write_text(json.dumps({"pid": process.pid, "started": started_at(process.pid)}))
        return process

    def _forked(self, output: int) -> Forked | None:
        server, command = self.command.fork_server, self.command
        if server is None:
            return None
        module = command.arguments[command.arguments.index("-m") + 1 :]
        environment = {**os.environ, **command.environment}
        try:
            return server.fork(module, environment, stdout=output, stderr=output, folder=command.folder)
        except NoForkServer as error:
            self._note(f"imports for itself: its fork server has ended ({error})")
            return None

    def _executed(self, output: int) -> subprocess.Popen[bytes]:
        owner = self.command.owner
        plan = json.dumps(
            {
                "parent": os.getpid(),
                "signal": int(signal.SIGKILL),
                "uid": owner[0] if owner else None,
                "gid": owner[1] if owner else None,
            }
        )
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _LAUNCHER, plan, *self.command.arguments],
            env={**os.environ, **self.command.environment},
            cwd=self.command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the stack alone, which then stops the parts in order
        )

    def _note(self, text: str) -> None:
        with self.log.open("a") as handle:
            handle.write(f"[lorafleet] {self.name} {text}\n")

    @staticmethod
    def _send(pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    @staticmethod
    def _end_group(pid: int) -> None:
        """What the process had started, such as a training run, must not outlive it."""
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def started_at(pid: int) -> float:
    """When a process began, in seconds since the epoch; 0 when it is gone.

    Together with the id it names a process for certain: ids are used again.
    """
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return 0.0


def end_left_over(run: Path) -> list[str]:
    """End the processes that a killed stack left behind; returns their names."""
    ended = []
    for record in sorted(run.glob("*.json")):
        try:
            known = json.loads(record.read_text())
            pid, started = int(known["pid"]), float(known["started"])
        except (ValueError, KeyError, TypeError):  # the stack died while writing it
            pid, started = 0, 0.0
        if pid > 0 and started and started_at(pid) == started:
            Supervised._end_group(pid)
            deadline = time.monotonic() + 10
            while started_at(pid) == started and time.monotonic() < deadline:
                time.sleep(0.02)
            ended.append(record.stem)
        record.unlink(missing_ok=True)
    return ended


def together(steps: Iterable[Callable[[], None]]) -> None:
    """Run steps at the same time and wait for all of them; raises the first failure."""
    failures: list[BaseException] = []

    def guarded(step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
