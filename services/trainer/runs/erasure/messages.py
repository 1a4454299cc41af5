"""Messages about a person: found in a stream by their sequence or in the dead letters, and deleted there."""

import json
from collections.abc import Mapping

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from fleet_events.topology import DEAD_STREAM, row_of_subject
from fleet_kit.cloudevents import open_envelope
from fleet_kit.dead_letters import list_dead
from fleet_kit.errors import Refused, Unreadable
from services.trainer.datasets.subjects import digest_of


async def delete_message(jetstream: JetStreamContext, stream: str, sequence: int, key: bytes, subject: str) -> bool:
    """Delete a message that is about the person; False where there is none any more.

    Its content is looked at first: in a stream that was made anew the sequence is another message's.
    """
    try:
        message = await jetstream.get_msg(stream, seq=sequence, direct=True)
    except NotFoundError:
        return False
    headers = dict(message.headers or {})
    if not about(message.subject or "", headers, message.data or b"", key, subject):
        return False
    # Without `no_erase` the server overwrites the message on its disk.
    await jetstream.delete_msg(stream, sequence)
    return True


async def delete_dead_letters(jetstream: JetStreamContext, key: bytes, subject: str) -> int:
    """Delete the dead letters about the person, and the messages that they are copies of; returns how many letters."""
    deleted = 0
    async for letter in list_dead(jetstream):
        if not about(letter.subject, letter.headers, letter.body, key, subject):
            continue
        row = row_of_subject(letter.subject)
        original = letter.headers.get("Lorafleet-Sequence", "")
        if row is not None and original.isdigit():
            await delete_message(jetstream, row.stream.name, int(original), key, subject)
        await jetstream.delete_msg(DEAD_STREAM, letter.sequence)
        deleted += 1
    return deleted


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
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if isinstance(found, dict) and isinstance(found.get("data"), dict):
        found = found["data"]  # CloudEvents in structured mode
    name = found.get("subject") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""
