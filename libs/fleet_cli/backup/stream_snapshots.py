"""Snapshots of JetStream's streams with their consumers, taken while they are in use, and their restoration.

The protocol is JetStream's own (`$JS.API.STREAM.SNAPSHOT` and `RESTORE`), as the `nats` command uses it; nats-py has no
calls for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from lorafleet.errors import FleetError

__all__ = ["restore_stream", "snapshot_stream"]

CHUNK = 128 * 1024
_PATIENCE = 30.0
"""Seconds for the server's next chunk or answer."""


async def snapshot_stream(client: Client, name: str, to: Path) -> Mapping[str, Any]:
    """Write a stream's snapshot to a file; returns its `config` and `state`, which the restoration needs.

    Raises:
        FleetError: the server refuses it, or breaks off.
    """
    inbox = client.new_inbox()
    chunks = await client.subscribe(inbox)
    try:
        request = {"deliver_subject": inbox, "no_consumers": False, "jsck": True, "chunk_size": CHUNK}
        found = await _request(client, f"$JS.API.STREAM.SNAPSHOT.{name}", json.dumps(request).encode())
        with to.open("wb") as file:
            while True:
                message = await chunks.next_msg(timeout=_PATIENCE)
                headers = message.headers or {}
                status = headers.get("Status", "")
                if status and not status.startswith("2"):
                    raise FleetError(f"the snapshot of {name} broke off: {headers.get('Description', status)}")
                if not message.data:
                    break
                await asyncio.to_thread(file.write, message.data)
                if message.reply:
                    await client.publish(message.reply)
    except TimeoutError as error:
        raise FleetError(f"the snapshot of {name} broke off: NATS sent nothing for {_PATIENCE:g} s") from error
    finally:
        await chunks.unsubscribe()
    return {"config": found["config"], "state": found["state"]}


async def restore_stream(client: Client, name: str, snapshot: Path, described: Mapping[str, Any]) -> None:
    """Make a stream and its consumers of a snapshot; a stream of that name must not be there.

    Raises:
        FleetError: the server refuses it.
    """
    begun = await _request(client, f"$JS.API.STREAM.RESTORE.{name}", json.dumps(described).encode())
    with snapshot.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            await _request(client, begun["deliver_subject"], chunk)
    await _request(client, begun["deliver_subject"], b"")


async def _request(client: Client, subject: str, body: bytes) -> dict[str, Any]:
    answer = await client.request(subject, body, timeout=_PATIENCE)
    found: dict[str, Any] = json.loads(answer.data) if answer.data else {}
    if error := found.get("error"):
        raise FleetError(f"JetStream refused {subject}: {error.get('description', error)}")
    return found
