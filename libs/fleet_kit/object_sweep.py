"""Mark and sweep over a service's own objects: what nothing refers to is deleted once it is old enough.

Every put renews an object's time, and a service commits its reference within minutes of the put; so an object younger
than the grace time is never deleted, with or without references. Marks are read again before each batch of deletions,
and an object that was rewritten since it was listed is kept. The number of deletions in one sweep is bounded: more are
made only where the caller confirms the number.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from fleet_kit.blobs import Blobs, FoundObject

__all__ = ["Bound", "Marks", "SweepRefused", "SweptKind", "sweep"]

log = structlog.get_logger()

Marks = Callable[[], Awaitable[Collection[str]]]
"""Reads the URIs of all objects that something refers to."""
BATCH = 200
"""Deletions between two readings of the marks."""
FEW = 100
"""So many objects may always go."""


class SweepRefused(Exception):
    """Nothing was deleted; the message tells why, and what permits it."""


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


@dataclass(frozen=True)
class Bound:
    """How much one sweep may delete: `FEW` objects, that share of all, or as many as somebody has confirmed."""

    share: float
    confirmed: int = 0

    def refusal(self, kinds: Sequence[SweptKind]) -> str:
        """Why what was found is too much to delete; empty where it is not."""
        doomed = sum(one.unreferenced for one in kinds)
        objects = sum(one.objects for one in kinds)
        if doomed <= max(FEW, self.share * objects, self.confirmed):
            return ""
        return (
            f"{doomed} of {objects} objects would be deleted, more than {FEW} and {self.share:.0%} of them: "
            f"lorafleet gc --apply --at-most {doomed} permits it (at_most over HTTP)"
        )


async def sweep(
    blobs: Blobs, kinds: Collection[str], marks: Marks, *, grace: timedelta, apply: bool, bound: Bound | None = None
) -> list[SweptKind]:
    """Count a service's objects by kind, and delete those that nothing refers to.

    Args:
        blobs: of the service whose objects they are.
        kinds: those that are swept; everything else is left alone.
        marks: reads what is referred to.
        grace: younger objects stay.
        apply: False deletes nothing.
        bound: how much may go; None: as much as there is.

    Raises:
        SweepRefused: more would go than the bound permits.
        what the object store and the marks raise; what was deleted until then is deleted.
    """
    found = [await _found(blobs, kind, marks, grace) for kind in sorted(kinds)]
    swept = [count for count, _ in found]
    if not apply:
        return swept
    if bound is not None and (refusal := bound.refusal(swept)):
        raise SweepRefused(refusal)
    return [await _delete(blobs, candidates, marks, count) for count, candidates in found]


async def _found(blobs: Blobs, kind: str, marks: Marks, grace: timedelta) -> tuple[SweptKind, list[FoundObject]]:
    """The objects of a kind, counted, and those of them that may be deleted."""
    held, count, candidates = await marks(), SweptKind(kind), list[FoundObject]()
    async for page in blobs.pages(kind):
        for one in page:
            oldest_young, is_held = datetime.now(UTC) - grace, blobs.uri(one.key) in held
            count = _counted(count, one, held=is_held, oldest_young=oldest_young)
            if not is_held and one.modified <= oldest_young:
                candidates.append(one)
    return count, candidates


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
