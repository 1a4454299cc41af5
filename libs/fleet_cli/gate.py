"""Starts a service in two steps: imports first, running once the servers are there.

    python -m fleet_cli.gate services.router.app sentence_transformers

The module runs; those named after it are imported early, because the service imports them only when it needs them.
Importing torch takes most of a service's start. Done while the servers start, it costs no time. The gate is
standard input: it opens when the stack closes its end. Outside of `stack`, whose import brings the clients along.
"""

from __future__ import annotations

import importlib
import runpy
import sys

_UNUSED = ("aiohttp", "httpx._main")
"""What nats-py imports for WebSockets and httpx for its command line, where it is installed: 6 MB and 0.15 s of each
service. The images that have no data sets' libraries lack it too."""


def _import_clients() -> None:
    """Import both clients as they are where those packages are not installed."""
    hidden = [name for name in _UNUSED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # the import system's mark of what cannot be imported
    for name in ("nats", "httpx"):
        importlib.import_module(name)
    for name in hidden:
        del sys.modules[name]


def main() -> None:
    """Import the module, wait for the gate, then run it as `python -m` would."""
    module, *early = sys.argv[1:]
    _import_clients()
    for name in (module, *early):
        importlib.import_module(name)
    sys.stdin.read()
    # What it imported stays; the module itself runs again, as __main__.
    del sys.modules[module]
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
