"""Prints of golden data sets as events bring them: stored, and handed to builds and to trainings."""

import base64

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets.golden import store
from services.trainer.datasets.golden.index import GoldenIndex


async def remember(connection: Connection, event: v1.GoldenDatasetPublished) -> None:
    """Keep a published part; the same part again changes nothing.

    Raises:
        ValueError: a signature is not base64.
    """
    if not await store.add_part(connection, event):
        return
    await store.add_prints(
        connection,
        event,
        [(bytes.fromhex(one.digest), base64.b64decode(one.signature, validate=True)) for one in event.prints],
    )
    await store.forget_superseded(connection, event.dataset_id, event.version)


async def golden_index(connection: Connection) -> GoldenIndex:
    """All golden prompts that are known now; opens a transaction of its own."""
    async with connection.transaction(readonly=True):
        return GoldenIndex(tuple([one async for one in store.list_prints(connection)]))
