"""The database as one file, by PostgreSQL's own tools."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fleet_cli.stack.programs import postgres_bin
from lorafleet.errors import FleetError

__all__ = ["dump_database", "restore_database"]


def dump_database(url: str, to: Path) -> None:
    """Write all schemas as of one moment. `url` is the superuser's. Raises FleetError with the tool's reason."""
    _run("pg_dump", url, "--format=custom", "--no-sync", f"--file={to}")


def restore_database(url: str, dump: Path) -> None:
    """Replace what is in the database; roles must be there. Raises FleetError with the tool's reason."""
    _run("pg_restore", url, "--clean", "--if-exists", "--exit-on-error", "--single-transaction", str(dump))


def _run(program: str, url: str, *arguments: str) -> None:
    parts = urlsplit(url)
    # As variables: arguments are shown in the list of processes.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGUSER": unquote(parts.username or ""),
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
    }
    database = unquote(parts.path.lstrip("/"))
    done = subprocess.run(
        [str(postgres_bin() / program), "--no-password", f"--dbname={database}", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise FleetError(f"{program} failed: {reason}", done.stderr)
