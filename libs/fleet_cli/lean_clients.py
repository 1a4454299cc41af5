"""Importing this imports the clients of the bus and of HTTP without what no service uses of them."""

from __future__ import annotations

import importlib
import sys

_UNUSED = ("aiohttp", "httpx._main")
"""What nats-py imports for WebSockets and httpx for its command line, where it is installed: 6 MB and 0.15 s of each
service. The images that have no data sets' libraries lack it too."""

_hidden = [name for name in _UNUSED if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment] # the import system's mark of what cannot be imported
for _name in ("nats", "httpx"):
    importlib.import_module(_name)
for _name in _hidden:
    del sys.modules[_name]
