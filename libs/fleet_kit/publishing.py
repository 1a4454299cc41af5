"""Publishing to JetStream, and which of its refusals are for good."""

import asyncio
from collections.abc import Mapping

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError

from fleet_kit.cloudevents import Outgoing
from fleet_kit.errors import PublicationRefused

__all__ = ["TIMEOUT", "has_room", "is_well_formed", "publish", "publish_soon", "room_beside"]

TIMEOUT = 5.0
"""Seconds until a message that was not acknowledged counts as not stored."""

_HEADER_LINES = len(b"NATS/1.0\r\n\r\n")
_OF_THE_MESSAGE = frozenset(
    {
        10054,  # JSStreamMessageExceedsMaximumErr: over the stream's max_msg_size
        10097,  # JSStreamHeaderExceedsMaximumErr: headers over 64 KiB
        10165,  # JSMessageTTLInvalidErr
    }
)
"""Error codes of what no repetition changes (nats-server, server/errors.json). Any other refusal, of a full
or a missing stream for example, comes from the surroundings: it passes, or an operator mends it."""


async def publish(jetstream: JetStreamContext, outgoing: Outgoing) -> PubAck:
    """Publish an event; returns once it is stored.

    Raises:
        PublicationRefused: this message is refused however often it is sent.
        nats.errors.Error, OSError, TimeoutError: it is not known to be stored, and may be sent again.
    """
    if not is_well_formed(outgoing.subject):
        raise PublicationRefused(f"subject {outgoing.subject[:200]!r} is malformed")
    if not has_room(jetstream, outgoing.body, outgoing.headers):
        # Sent nevertheless, the server would close the connection, also for everything else under way.
        limit, room = max_payload(jetstream), room_beside(jetstream, outgoing.headers)
        raise PublicationRefused(
            f"body of {len(outgoing.body)} bytes and headers of {limit - room} are over the {limit} bytes of a message "
            "that this server takes (max_payload)"
        )
    try:
        return await jetstream.publish(outgoing.subject, outgoing.body, timeout=TIMEOUT, headers=dict(outgoing.headers))
    except nats.errors.BadSubjectError as error:
        raise PublicationRefused(f"subject {outgoing.subject[:200]!r} is malformed") from error
    except nats.errors.BadHeaderError as error:
        raise PublicationRefused(f"a header is malformed: {error}") from error
    except APIError as error:
        if error.err_code in _OF_THE_MESSAGE:
            raise PublicationRefused(f"JetStream refuses it: {error.description} ({error.err_code})") from error
        raise


def publish_soon(jetstream: JetStreamContext, outgoing: Outgoing) -> "asyncio.Task[PubAck]":
    """Begin to publish; messages are sent in the order of the calls.

    The task raises what `publish` raises, so the server's reason where it refuses (a full stream). The futures of
    nats-py's `publish_async` never learn of a refusal (findings/nats_async_publish_loses_refusals.sh).
    """
    return asyncio.create_task(publish(jetstream, outgoing))


def is_well_formed(subject: str) -> bool:
    """Whether no token is empty: the server answers that to the connection and not to the message."""
    return "" not in subject.split(".")


def has_room(jetstream: JetStreamContext, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether the server takes a message of this size."""
    return len(body) <= room_beside(jetstream, headers)


def room_beside(jetstream: JetStreamContext, headers: Mapping[str, str]) -> int:
    """Bytes that the server takes as a body beside these headers; below 0 where they alone are too large."""
    lines = (len(name.encode()) + len(value.encode()) + len(b": \r\n") for name, value in headers.items())
    return max_payload(jetstream) - _HEADER_LINES - sum(lines)


def max_payload(jetstream: JetStreamContext) -> int:
    """Bytes of headers and body together that the server takes."""
    return jetstream._nc.max_payload  # nats-py has no public way from JetStream to its client
