"""A replica that lacks a right on the bus is not ready, until it has worked once."""

from __future__ import annotations

import pytest
from nats.errors import Error

from fleet_kit.rights import Rights

pytestmark = pytest.mark.unit
REFUSED = Error('nats: permissions violation for publish to "$js.api.consumer.msg.next.lorafleet.router-released"')


class Clock:
    at = 0.0

    def __call__(self) -> float:
        return self.at


async def test_a_replica_that_may_not_read_its_durable_is_not_ready() -> None:
    rights = Rights(Clock())
    await rights.ready()
    rights.note(Error("nats: slow consumer, messages dropped"))
    await rights.ready()
    rights.note(REFUSED)
    with pytest.raises(PermissionError, match=r"router-released.*give it the accounts of this release"):
        await rights.ready()


async def test_a_replica_that_worked_stays_ready_where_a_right_is_taken_from_it() -> None:
    clock = Clock()
    rights = Rights(clock)
    await rights.ready()
    clock.at = 5.0
    rights.note(REFUSED)
    await rights.ready()
