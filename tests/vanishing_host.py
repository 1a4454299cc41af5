"""A host that can vanish: a network namespace with an address of its own, behind which a server of this machine answers.

A host that lost its power or its cable sends no reset and acknowledges nothing, which no proxy can pretend: the kernel
acknowledges in its stead. Needs root and Linux.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_FORWARDER = """
import asyncio, sys

kind, place, onward = sys.argv[1:]

async def pump(source, to):
    try:
        while data := await source.read(65536):
            to.write(data)
            await to.drain()
    except OSError:
        pass
    to.close()

async def take(reader, writer):
    try:
        if kind == "inside":
            there = await asyncio.open_unix_connection(onward)
        else:
            there = await asyncio.open_connection("127.0.0.1", int(onward))
    except OSError:
        return writer.close()
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

async def main():
    if kind == "inside":
        host, _, port = place.rpartition(":")
        server = await asyncio.start_server(take, host, int(port))
    else:
        server = await asyncio.start_unix_server(take, place)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


class VanishingHost:
    """An address that leads to a server until the host vanishes."""

    def __init__(self, address: str, namespace: str, device: str) -> None:
        self.address = address
        self._namespace = namespace
        self._device = device

    def vanishes(self) -> None:
        """Receive and send nothing any more."""
        _ip("-n", self._namespace, "link", "set", self._device, "down")

    def returns(self) -> None:
        """Receive and send again."""
        _ip("-n", self._namespace, "link", "set", self._device, "up")


@contextmanager
def vanishing_host(port: int, folder: Path) -> Iterator[VanishingHost]:
    """A host that serves a port of this machine under the same number. `folder` is for its socket."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network namespace needs root and `ip`")
    name = secrets.token_hex(3)
    namespace, here, there = f"host-{name}", f"vh{name}", f"vt{name}"
    # Of the addresses for benchmarks (RFC 2544): no real network has them.
    network = f"198.18.{secrets.randbelow(256)}"
    with ExitStack() as stack:
        _ip("netns", "add", namespace)
        stack.callback(_ip, "netns", "delete", namespace)
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        _ip("address", "add", f"{network}.1/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", namespace, "address", "add", f"{network}.2/30", "dev", there)
        _ip("-n", namespace, "link", "set", there, "up")
        socket = str(folder / f"{name}.sock")
        outside = [sys.executable, "-c", _FORWARDER, "outside", socket, str(port)]
        inside = [sys.executable, "-c", _FORWARDER, "inside", f"{network}.2:{port}", socket]
        for command in (outside, ["ip", "netns", "exec", namespace, *inside]):
            stack.enter_context(_running(command))
        yield VanishingHost(f"{network}.2:{port}", namespace, there)


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def _ip(*arguments: str) -> None:
    for attempt in range(10):  # a namespace may be busy for a moment after its processes ended
        done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1 * attempt)
    raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
