"""Whether a version that was taken out of service is out of service: what was decided has to reach every replica."""

from __future__ import annotations

import asyncio
import time

import nats.errors
import structlog
from nats.js.errors import NotFoundError
from pydantic import Field

from fleet_events.topology import Row
from fleet_kit.faults import describe
from fleet_kit.positions import reached
from services.registry.adapter_view import AdapterDetails
from services.registry.parts import RegistryService
from services.registry.store import outgoing
from services.registry.view import View

log = structlog.get_logger()

PUBLISH_SECONDS = 2.0
"""How long an answer waits for the event to be on the bus."""
APPLY_SECONDS = 3.0
"""How long it then waits for the replicas."""


class WithdrawalView(View):
    """How far the decision has come. It is recorded in any case, and reaches the rest once they can be reached."""

    published: bool = Field(description="The bus has stored the event; false while it is unavailable or full")
    applied: tuple[str, ...] = Field(default=(), description="Replicas of inference that no longer answer with it")
    pending: tuple[str, ...] = Field(default=(), description="Replicas that may still answer with it")

    @property
    def complete(self) -> bool:
        """Whether no replica answers with the version any more."""
        return self.published and not self.pending


class WithdrawnAdapter(AdapterDetails):
    """A version after it was taken out of service."""

    withdrawal: WithdrawalView


async def withdrawal_of(service: RegistryService, adapter_id: str, row: Row) -> WithdrawalView:
    """Wait, for seconds at most, until the event about a version that was just committed is applied everywhere.

    Args:
        service: the registry.
        adapter_id: the version.
        row: of the event that takes it out of service.
    """
    deadline = time.monotonic() + PUBLISH_SECONDS
    while await _waits(service, adapter_id):
        if time.monotonic() > deadline:
            return WithdrawalView(published=False)
        await asyncio.sleep(0.02)
    try:
        newest = await service.jetstream.get_last_msg(row.stream.name, row.subject, direct=True)
        found = await reached(service.jetstream, newest.seq or 0, seconds=APPLY_SECONDS)
    except NotFoundError:
        return WithdrawalView(published=True)  # it was never in service, so nothing was published
    except (nats.errors.Error, OSError, TimeoutError) as error:
        log.warning("replica_positions_unavailable", adapter=adapter_id, reason=describe(error))
        return WithdrawalView(published=False)
    return WithdrawalView(published=True, applied=found.applied, pending=found.pending)


async def _waits(service: RegistryService, adapter_id: str) -> bool:
    async with service.db.acquire(timeout=PUBLISH_SECONDS) as connection:
        return await outgoing.waits(connection, adapter_id)
