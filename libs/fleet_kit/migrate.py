"""Schema migrations: the kit's own tables, then the service's, applied by dbmate in the service's schema."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from fleet_kit.db_hosts import each_host
from fleet_kit.faults import describe
from fleet_kit.tls import database_address

__all__ = ["MigrationFailed", "migrate", "rollback"]

KIT = Path(__file__).parent / "migrations"
_UNDECIDED = frozenset({"allow", "prefer"})
_NO_TLS = "SSL is not enabled on the server"


class MigrationFailed(Exception):
    """dbmate refused; the message is its own."""


def migrate(service: str, database_url: str, ca_file: Path | None = None) -> None:
    """Bring a service's schema up to date. Idempotent; each file is one transaction.

    Args:
        service: name of the service and of its schema.
        database_url: postgres:// URL of the role that owns the schema, with sslmode and its files as in libpq. Of
            several servers (`@a,b:5433/`) the one that takes writes is migrated.
        ca_file: authorities that verify the server where the URL names none.

    Raises:
        MigrationFailed: with the output of dbmate.
    """
    _dbmate(service, database_address(database_url, ca_file), "up")


def rollback(service: str, database_url: str, ca_file: Path | None = None) -> None:
    """Take the newest migration back, for an older release; with it goes what only that migration has room for.

    Raises:
        MigrationFailed: with the output of dbmate, also where nothing is left to take back.
    """
    _dbmate(service, database_address(database_url, ca_file), "rollback")


def _dbmate(service: str, database_url: str, command: str) -> None:
    parts = urlsplit(_of_primary(database_url))
    parameters = {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl")}
    # The tool knows nothing between "encrypted" and "in the clear", where asyncpg prefers the former.
    modes = [parameters["sslmode"]] if parameters.get("sslmode", "prefer") not in _UNDECIDED else ["require", "disable"]
    folders = [KIT]
    found = find_spec(f"services.{service}")
    if found is not None and found.submodule_search_locations:
        folders.append(Path(next(iter(found.submodule_search_locations))) / "migrations")
    arguments = ["dbmate", "--no-dump-schema"]
    for folder in folders:
        if folder.is_dir():
            arguments += ["--migrations-dir", str(folder)]
    for mode in modes:
        query = urlencode(parameters | {"sslmode": mode, "search_path": f"{service},public"})
        url = urlunsplit(parts._replace(scheme="postgres", query=query))
        # The URL holds a password: the environment is not shown in the process list as arguments are.
        done = subprocess.run(
            [*arguments, command],
            env={"DATABASE_URL": url, "PATH": _path()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        reason = done.stderr.strip() or done.stdout.strip()
        if _NO_TLS not in reason:
            break
    raise MigrationFailed(f"{command} of {service}: {reason}")


def _of_primary(url: str) -> str:
    """The URL of the one server that takes writes: the tool knows no more than one."""
    parts = urlsplit(url)
    query = urlencode(dict(parse_qsl(parts.query)) | {"target_session_attrs": "read-write"})
    urls = each_host(urlunsplit(parts._replace(query=query)))
    if len(urls) == 1:
        return url
    reasons = []
    with ThreadPoolExecutor(1) as pool:  # the caller's thread may have a loop that runs
        for one in urls:
            host = urlsplit(one).netloc.rpartition("@")[2]
            try:
                pool.submit(asyncio.run, _connects(one)).result()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                reasons.append(f"{host}: {describe(error)}")
            else:
                return one
    raise MigrationFailed(f"none of the servers takes writes: {'; '.join(reasons)}")


async def _connects(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    await connection.close(timeout=5)


def _path() -> str:
    import os
    import sys

    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
