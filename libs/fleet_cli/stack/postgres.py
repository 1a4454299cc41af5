"""The database: a real PostgreSQL with pgvector, one role and one schema a service, passwords everywhere."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from fleet_cli.stack.errors import PartFailed
from fleet_cli.stack.home import Home
from fleet_cli.stack.ports import LOOPBACK
from fleet_cli.stack.process import Command
from fleet_cli.stack.programs import postgres_bin

DATABASE = "lorafleet"
_ADMIN = "postgres"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "512MB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "jit": "off",
}


def postgres_url(role: str, password: str, port: int, database: str = DATABASE) -> str:
    """Connection string of a role."""
    return f"postgresql://{quote(role)}:{quote(password)}@{LOOPBACK}:{port}/{quote(database)}?sslmode=disable"


def postgres_command(home: Home, port: int, admin_password: str) -> Command:
    """The command of postgres; makes the data folder at first. Raises PartFailed when initdb refuses."""
    data = home.postgres
    owner = _owner(data)
    if not (data / "PG_VERSION").exists():
        _initialise(data, admin_password, owner)
    # It belongs to a process that end_left_over has ended. PostgreSQL would check the id, which may be in use again.
    (data / "postmaster.pid").unlink(missing_ok=True)
    settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
    return Command(
        (str(postgres_bin() / "postgres"), "-D", str(data), "-p", str(port), *settings),
        folder=data,
        owner=owner,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
    )


def postgres_ready(home: Home, port: int) -> bool:
    """Whether it listens and reports itself ready: its port opens before recovery is over."""
    try:
        # storage/miscinit.h: the last line of postmaster.pid is the state of the server.
        state = (home.postgres / "postmaster.pid").read_text().splitlines()[7].strip()
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return state == "ready"
    except (OSError, IndexError):
        return False


def _owner(data: Path) -> tuple[int, int] | None:
    """PostgreSQL refuses to run as root; then its folder and process belong to another user that exists everywhere."""
    if os.geteuid() != 0:
        return None
    if data.exists():
        known = data.stat()
        if known.st_uid != 0:
            return known.st_uid, known.st_gid
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PartFailed("PostgreSQL does not run as root, and there is no user postgres or nobody; run as another user")


def _initialise(data: Path, admin_password: str, owner: tuple[int, int] | None) -> None:
    shutil.rmtree(data, ignore_errors=True)  # a first start that was killed half-way
    data.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", prefix="lorafleet-") as password:
        password.write(admin_password)
        password.flush()
        if owner is not None:
            os.chown(data, *owner)
            os.chown(password.name, *owner)
        launcher = str(Path(__file__).with_name("launch.py"))
        plan = (
            f'{{"parent": {os.getpid()}, "signal": 9, "uid": {owner[0]}, "gid": {owner[1]}}}'
            if owner
            else f'{{"parent": {os.getpid()}, "signal": 9, "uid": null, "gid": null}}'
        )
        done = subprocess.run(
            [
                sys.executable, "-I", "-S", launcher, plan, str(postgres_bin() / "initdb"), "-D", str(data),
                "--username", _ADMIN, "--pwfile", password.name, "--auth=scram-sha-256", "--encoding=UTF8",
                "--locale=C.UTF-8", "--no-sync",
            ],
            cwd=data,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    if done.returncode != 0:
        shutil.rmtree(data, ignore_errors=True)
        raise PartFailed(f"PostgreSQL's initdb failed with exit code {done.returncode}:\n{done.stderr.strip()}")
