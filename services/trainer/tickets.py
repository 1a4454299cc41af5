"""Tickets: an event that something waits lets its worker do what is next, which the database alone decides.

Builds of data sets and training jobs wait like this. A ticket is as good as any other one: each is used up by the end
of one thing, or by finding that nothing waits. So as many tickets as there are open things are enough for all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fleet_kit.db import Connection
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction

T = TypeVar("T")


async def claimed(
    work: LeasedTask,
    claim: Callable[[Transaction], Awaitable[T | None]],
    waiting: Callable[[Connection], Awaitable[bool]],
    *,
    look_seconds: float,
) -> T | None:
    """What a ticket has claimed; None when nothing waits, so that the ticket is spare.

    A ticket must not end while something waits that cannot be claimed at this moment: another transaction has its row,
    or its domain has enough running. It would be that thing's own.

    Args:
        work: the ticket's.
        claim: claims what is next, in the transaction that it gets.
        waiting: whether anything waits, locked or not.
        look_seconds: time between two looks.
    """
    while True:
        async with work.transaction() as tx:
            found = await claim(tx)
            if found is not None:
                await work.progress(tx)  # from here on what was claimed counts its own attempts
                return found
            if not await waiting(tx.connection):
                return None
        await asyncio.sleep(look_seconds)
