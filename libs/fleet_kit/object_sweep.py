"""Mark and sweep over a service's own objects: what nothing refers to is deleted once it is old enough.

Every put renews an object's time, and a service commits its reference within minutes of the put; so an object younger
than the grace time is never deleted, with or without references. Marks are read again before each batch of deletions,
and an object that was written anew since it was listed stays.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from fleet_kit.blobs import Blobs, FoundObject

__all__ = ["Marks", "SweptKind", "sweep"]

log = structlog.get_logger()

Marks = Callable[[], Awaitable[Collection[str]]]
"""Reads the URIs of all objects that something refers to."""
BATCH = 200
"""Deletions between two readings of the marks."""


@dataclass(frozen=True)
class SweptKind:
    """The objects of one kind: `<service>/<kind>/…`. `unreferenced` ones are old enough, and deleted when applied."""

    kind: str
    objects: int = 0
    bytes: int = 0
    referenced: int = 0
    young: int = 0
    """Nothing refers to them yet, or any more, and they are younger than the grace time."""
    unreferenced: int = 0
    unreferenced_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0


async def sweep(
    blobs: Blobs, kinds: Collection[str], marks: Marks, *, grace: timedelta, apply: bool
) -> list[SweptKind]:
    """Count a service's objects by kind, and delete those that nothing refers to.

    Args:
        blobs: of the service whose objects they are.
        kinds: those that are swept; everything else is left alone.
        marks: reads what is referred to.
        grace: younger objects stay.
        apply: False deletes nothing.

    Raises:
        what the object store and the marks raise; what was deleted until then is deleted.
    """
    swept = []
    for kind in sorted(kinds):
        held = await marks()
        count, candidates = SweptKind(kind), list[FoundObject]()
        async for page in blobs.pages(kind):
            for one in page:
                count = _counted(count, one, held=blobs.uri(one.key) in held, oldest_young=datetime.now(UTC) - grace)
                if blobs.uri(one.key) not in held and one.modified <= datetime.now(UTC) - grace:
                    candidates.append(one)
        if apply:
            count = await _delete(blobs, candidates, marks, count)
        swept.append(count)
    return swept


def _counted(count: SweptKind, one: FoundObject, *, held: bool, oldest_young: datetime) -> SweptKind:
    count = replace(count, objects=count.objects + 1, bytes=count.bytes + one.bytes)
    if held:
        return replace(count, referenced=count.referenced + 1)
    if one.modified > oldest_young:
        return replace(count, young=count.young + 1)
    return replace(count, unreferenced=count.unreferenced + 1, unreferenced_bytes=count.unreferenced_bytes + one.bytes)


async def _delete(blobs: Blobs, candidates: list[FoundObject], marks: Marks, count: SweptKind) -> SweptKind:
    for start in range(0, len(candidates), BATCH):
        held = await marks()
        for one in candidates[start : start + BATCH]:
            if blobs.uri(one.key) in held or not await blobs.delete_unchanged(one):
                continue
            log.info("object_swept", key=one.key, bytes=one.bytes)
            count = replace(count, deleted=count.deleted + 1, deleted_bytes=count.deleted_bytes + one.bytes)
        await asyncio.sleep(0)
    return count
