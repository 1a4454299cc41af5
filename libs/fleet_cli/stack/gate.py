"""Starts a service in two steps: imports first, running once the servers are there.

    python -m fleet_cli.stack.gate services.router.app sentence_transformers

The module runs; those named after it are imported early, because the service imports them only when it needs them.
Importing torch takes most of a service's start. Done while the servers start, it costs no time. The gate is
standard input: it opens when the stack closes its end.
"""

from __future__ import annotations

import importlib
import runpy
import sys


def main() -> None:
    """Import the module, wait for the gate, then run it as `python -m` would."""
    module, *early = sys.argv[1:]
    for name in (module, *early):
        importlib.import_module(name)
    sys.stdin.read()
    # What it imported stays; the module itself runs again, as __main__.
    del sys.modules[module]
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
