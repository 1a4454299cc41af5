"""A service of the kit whose effect of an event is one event more, and a look at what it did."""

import asyncio
from collections import Counter
from typing import Any

from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import row_of
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction


def echoing() -> Handlers[Any]:
    """A registry that publishes a deactivation for each piece of feedback."""
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        name = event.generation_id
        await tx.emit(v1.AdapterDeactivated(adapter_id=name, family="f", domain="d", revision=1), entity=name)

    return handlers


async def publish(jetstream: JetStreamContext, run: str, numbers: range) -> None:
    """Publish feedback with these numbers, some every second, and wait until each is acknowledged."""
    for number in numbers:
        body = v1.FeedbackRecorded(generation_id=f"{run}{number}", rating=5).to_json()
        subject = row_of(v1.FeedbackRecorded).subject
        await jetstream.publish(subject, body, headers={"ce-id": f"{run}{number}"})
        await asyncio.sleep(0.02)


async def effects(jetstream: JetStreamContext, run: str) -> Counter[str]:
    """How often each of a run's effects is in the stream."""
    row = row_of(v1.AdapterDeactivated)
    found: Counter[str] = Counter()
    reader = await jetstream.subscribe(row.subject, stream=row.stream.name, ordered_consumer=True)
    try:
        while True:
            message = await reader.next_msg(timeout=1)
            name = v1.AdapterDeactivated.from_json(message.data.decode()).adapter_id
            if name.startswith(run):
                found[name] += 1
            if message.metadata.num_pending == 0:
                return found
    except NatsTimeout:
        return found
    finally:
        await reader.unsubscribe()
