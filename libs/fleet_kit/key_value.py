"""A key-value bucket of the topology: write one's own keys, watch everybody's or read one."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import nats.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from fleet_events.buckets import Bucket
from fleet_kit.cloudevents import event_id
from fleet_kit.faults import describe

__all__ = ["Entry", "KeyValue", "WrittenMeanwhile"]

log = structlog.get_logger()

OPERATION = "KV-Operation"
TIMEOUT = 2.0
"""Seconds for one write: a late announcement is worth nothing."""
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE = (10071, 10164)
"""Error codes of the server for a write that expected another revision."""


class WrittenMeanwhile(Exception):
    """The key has another revision than the write expected."""


@dataclass(frozen=True)
class Entry:
    """A key's newest value. revision: its sequence in the stream, which grows with every write."""

    value: bytes
    revision: int


class KeyValue:
    """One bucket, on subjects and headers of NATS ADR-8, so that `nats kv` shows it.

    Not `nats.js.kv`: its watcher needs rights to make and look at any consumer of the stream, and does not notice
    when its consumer is lost.
    """

    def __init__(self, jetstream: JetStreamContext, bucket: Bucket) -> None:
        self.bucket = bucket
        self._jetstream = jetstream
        self._prefix = bucket.subjects.removesuffix(">")

    async def put(self, key: str, value: bytes) -> None:
        """Write a key; raises what a JetStream publish raises."""
        await self._jetstream.publish(f"{self._prefix}{key}", value, timeout=TIMEOUT)

    async def replace(self, key: str, value: bytes, revision: int) -> int:
        """Write a key whose newest revision is this one, 0 for a key that is not there; returns the new revision.

        Raises:
            WrittenMeanwhile: the key has another revision; and what a JetStream publish raises.
        """
        try:
            ack = await self._jetstream.publish(
                f"{self._prefix}{key}", value, timeout=TIMEOUT, headers={_EXPECTED: str(revision)}
            )
        except APIError as error:
            if error.err_code in _WRONG_SEQUENCE:
                raise WrittenMeanwhile(key) from error
            raise
        return ack.seq

    async def find(self, key: str) -> Entry | None:
        """As `get`, with the revision."""
        try:
            found = await self._jetstream.get_last_msg(self.bucket.stream, f"{self._prefix}{key}")
        except NotFoundError:
            return None
        if OPERATION in (found.headers or {}):
            return None
        return Entry(found.data or b"", found.seq or 0)

    async def keys(self, pattern: str) -> list[str]:
        """Keys of a `listed` bucket that a NATS subject pattern matches, sorted; some may have been removed."""
        info = await self._jetstream.stream_info(self.bucket.stream, subjects_filter=f"{self._prefix}{pattern}")
        return sorted(subject.removeprefix(self._prefix) for subject in info.state.subjects or {})

    async def get(self, key: str) -> bytes | None:
        """The newest value of a key, None where it has none; raises what a request to JetStream raises.

        Of a bucket whose values are kept: those of announcements are watched.
        """
        found = await self.find(key)
        return found.value if found else None

    async def delete(self, key: str) -> None:
        """Remove a key and its value; watchers receive that."""
        await self._jetstream.publish(f"{self._prefix}{key}", timeout=TIMEOUT, headers={OPERATION: "DEL"})

    async def watch(self) -> AsyncGenerator[tuple[str, bytes | None], None]:
        """Every key with its newest value, then changes as they come; None is a removed key.

        The expiry of a value is no change: a watcher applies the bucket's `ttl` itself. Ends when nothing has come for
        as long as that: a watcher that writes a key of its own would have received it, so the watch is lost. Raises
        what JetStream raises when it cannot begin.
        """
        seconds = self.bucket.ttl.total_seconds()
        config = ConsumerConfig(
            name=f"watch-{event_id()}",
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            inactive_threshold=60,
            filter_subject=self.bucket.subjects,
        )
        subscription = await self._jetstream.subscribe(
            self.bucket.subjects, stream=self.bucket.stream, config=config, ordered_consumer=True
        )
        try:
            while True:
                try:
                    message = await subscription.next_msg(timeout=seconds)
                except TimeoutError:
                    log.warning("watch_silent", bucket=self.bucket.name, seconds=seconds)
                    return
                key = message.subject.removeprefix(self._prefix)
                yield key, None if OPERATION in (message.headers or {}) else message.data
        finally:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.info("watch_ended", bucket=self.bucket.name, reason=describe(error))
