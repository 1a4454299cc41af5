"""Uploads that were not used for long."""

from datetime import timedelta

from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.store import samples as store

_AT_ONCE = 100


async def expire_uploads(service: DatasetContext) -> int:
    """Delete uploads that were neither put nor built from within `upload_days`, unless an open build names them.

    Returns:
        How many were deleted.
    """
    unused, expired = timedelta(days=service.settings.upload_days), 0
    while True:
        async with service.transaction() as tx:
            removed = await store.remove_expired_uploads(tx.connection, unused, _AT_ONCE)
            for one in removed:
                # Before the commit: a store that cannot be reached leaves the upload listed, to be deleted again.
                await service.blobs.delete(one.blob)
        expired += len(removed)
        if len(removed) < _AT_ONCE:
            return expired
