"""Messages about a person: found in a stream by their sequence or in the dead letters, and deleted there.

Before a message the object that has its texts is deleted, which nothing else names any more.
"""

import json
from collections.abc import Mapping

from nats.js.errors import NotFoundError

from fleet_events.topology import DEAD_STREAM, row_of_subject
from fleet_events.v1 import Blob, GenerationRecorded
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import open_envelope
from fleet_kit.dead_letters import list_dead
from fleet_kit.errors import Refused, Unreadable
from services.trainer.datasets.subjects import digest_of
from services.trainer.runs.context import RunContext


async def delete_message(service: RunContext, stream: str, sequence: int, key: bytes, subject: str) -> bool:
    """Delete a message that is about the person; False where there is none any more.

    Its content is looked at first: in a stream that was made anew the sequence is another message's.
    """
    jetstream = service.jetstream
    try:
        message = await jetstream.get_msg(stream, seq=sequence, direct=True)
    except NotFoundError:
        return False
    headers = dict(message.headers or {})
    if not about(message.subject or "", headers, message.data or b"", key, subject):
        return False
    await delete_texts(service.blobs, texts_of(message.subject or "", headers, message.data or b""))
    # Without `no_erase` the server overwrites the message on its disk.
    await jetstream.delete_msg(stream, sequence)
    return True


async def delete_dead_letters(service: RunContext, key: bytes, subject: str) -> int:
    """Delete the dead letters about the person, and the messages that they are copies of; returns how many letters."""
    deleted = 0
    async for letter in list_dead(service.jetstream):
        if not about(letter.subject, letter.headers, letter.body, key, subject):
            continue
        row = row_of_subject(letter.subject)
        original = letter.headers.get("Lorafleet-Sequence", "")
        if row is not None and original.isdigit():
            await delete_message(service, row.stream.name, int(original), key, subject)
        await delete_texts(service.blobs, texts_of(letter.subject, letter.headers, letter.body))
        await service.jetstream.delete_msg(DEAD_STREAM, letter.sequence)
        deleted += 1
    return deleted


async def delete_texts(blobs: Blobs, uri: str) -> bool:
    """Delete the texts of a recorded answer. False for anything else: an event may name what it likes."""
    if not uri.startswith(blobs.uri("inference/answers/")):
        return False
    await blobs.delete(Blob(uri=uri, sha256=uri.rpartition("/")[2]))
    return True


def texts_of(bus_subject: str, headers: Mapping[str, str], body: bytes) -> str:
    """URI of the object with the texts of a recorded answer; empty where the event has none."""
    try:
        event, _ = open_envelope(bus_subject, dict(headers), body, 0)
    except (Refused, Unreadable):
        content = _loose(body).get("content")
        uri = content.get("uri") if isinstance(content, dict) else None
        return uri if isinstance(uri, str) else ""
    return event.content.uri if isinstance(event, GenerationRecorded) and event.content else ""


def about(bus_subject: str, headers: Mapping[str, str], body: bytes, key: bytes, subject: str) -> bool:
    """Whether an event names the person: its field `subject`, also where the body breaks the contract otherwise."""
    name = _named(bus_subject, headers, body)
    return bool(name) and digest_of(key, name) == subject


def _named(bus_subject: str, headers: Mapping[str, str], body: bytes) -> str:
    try:
        event, _ = open_envelope(bus_subject, dict(headers), body, 0)
        return str(getattr(event, "subject", ""))
    except (Refused, Unreadable):
        pass
    name = _loose(body).get("subject")
    return name if isinstance(name, str) else ""


def _loose(body: bytes) -> dict[str, object]:
    """What a body that breaks its contract holds all the same."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(found, dict) and isinstance(found.get("data"), dict):
        found = found["data"]  # CloudEvents in structured mode
    return found if isinstance(found, dict) else {}
