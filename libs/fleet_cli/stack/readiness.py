"""Whether a part of the stack is ready, and what it lacks while it is not."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

from fleet_cli.stack.bus import bus_ready
from fleet_cli.stack.certificates import Certificates
from fleet_cli.stack.environment import service_url
from fleet_cli.stack.home import Home
from fleet_cli.stack.objects import objects_ready
from fleet_cli.stack.postgres import postgres_ready

_NO_ANSWER = "no answer"


def readiness(name: str, home: Home, port: int, certificates: Certificates | None = None) -> Callable[[], str]:
    """A call that returns what a server or service still lacks; "" when it is ready."""
    match name:
        case "nats":
            return lambda: "" if bus_ready(port) else _NO_ANSWER
        case "postgres":
            return lambda: "" if postgres_ready(home, port) else _NO_ANSWER
        case "s3":
            return lambda: "" if objects_ready(port, certificates) else _NO_ANSWER
        case _:
            return lambda: service_missing(
                service_url(port, certificates), certificates.trust if certificates else None
            )


def service_missing(url: str, trust: ssl.SSLContext | None = None) -> str:
    """What keeps a service from being ready, in its own words; "" when it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=4, context=trust) as answer:  # noqa: S310 - our own http address
            return "" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")[:500] or f"status {error.code}"
    except OSError as error:  # URLError is one
        return str(error)
