"""JSON messages to and from a child process, each behind its length."""

import contextlib
import json
import os
import select
import struct
import subprocess
import time
from collections.abc import Mapping
from typing import Any


def send(process: "subprocess.Popen[bytes]", message: Mapping[str, object]) -> None:
    """Write a frame: four bytes of its length, then JSON. That the process has ended is found out by `receive`."""
    if process.stdin is None:
        raise RuntimeError("the process was started without an input")
    body = json.dumps(message).encode()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(struct.pack(">I", len(body)) + body)
        process.stdin.flush()


def receive(process: "subprocess.Popen[bytes]", seconds: float, most: int) -> dict[str, Any] | None:
    """Its next frame; None if it ended, was silent for so long, or announces more than `most` bytes."""
    until = time.monotonic() + seconds
    head = _bytes(process, 4, until)
    if head is None or (size := struct.unpack(">I", head)[0]) > most:
        return None
    body = _bytes(process, size, until)
    if body is None:
        return None
    answer: dict[str, Any] = json.loads(body)
    return answer


def _bytes(process: "subprocess.Popen[bytes]", count: int, until: float) -> bytes | None:
    if process.stdout is None:
        raise RuntimeError("the process was started without an output")
    got = bytearray()
    waiting = select.poll()
    waiting.register(process.stdout, select.POLLIN)
    while len(got) < count:
        if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
            return None
        some = os.read(process.stdout.fileno(), count - len(got))
        if not some:
            return None
        got += some
    return bytes(got)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill it and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # What is still buffered for a process that has ended cannot be written.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
