"""Publishing without waiting for each message's acknowledgement before the next is sent."""

import asyncio
from collections.abc import Mapping

from nats.js import JetStreamContext
from nats.js.api import PubAck

__all__ = ["TIMEOUT", "publish_soon"]

TIMEOUT = 5.0
"""Seconds until a message that was not acknowledged counts as not stored."""


def publish_soon(
    jetstream: JetStreamContext, subject: str, body: bytes, headers: Mapping[str, str]
) -> "asyncio.Task[PubAck]":
    """Begin to publish; messages are sent in the order of the calls.

    The task raises what `publish` raises, so the server's reason where it refuses (a full stream). The futures of
    nats-py's `publish_async` never learn of a refusal (findings/nats_async_publish_loses_refusals.sh).
    """
    return asyncio.create_task(jetstream.publish(subject, body, timeout=TIMEOUT, headers=dict(headers)))
