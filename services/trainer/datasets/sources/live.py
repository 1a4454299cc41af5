"""What the domain has recorded: samples, ratings and preferences, as they came in by event or over HTTP."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet_events.v1 import FeedbackRecorded, GenerationRecorded, PreferenceRecorded, SampleRecorded
from fleet_kit.db import Connection
from services.trainer.datasets.consumer_barrier import settled
from services.trainer.datasets.records import Kind, Record
from services.trainer.datasets.sources.source import Access, BoundedFile, Gathered, Source
from services.trainer.datasets.store import live as live_store
from services.trainer.datasets.worker.spec import InputFile

_RECORDED = (SampleRecorded, GenerationRecorded, FeedbackRecorded, PreferenceRecorded)

_SELECTS = {
    Kind.COMPLETION: live_store.select_completions,
    Kind.RATED: live_store.select_rated,
    Kind.PREFERENCE: live_store.select_preferences,
    Kind.RANKING: live_store.select_rankings,
}


class Live(Source):
    """The domain's own records that match a full-text query (empty: all).

    completion: samples that are not rated below `min_rating`. rated: rated samples. preference: recorded pairs, and
    those that different ratings of answers to one prompt imply. ranking: the differently rated answers to one prompt,
    best first, and orders of three or more answers that people told by their preferences. For the last two `min_rating`
    is required of the best answer alone, where it is rated: the others are bad on purpose. Feedback on answers that the
    fleet recorded is among all of them. What was published before is there: a caller that records
    and then requests may expect it.
    """

    kind: Literal["live"] = "live"
    query: Annotated[str, Field(max_length=2000)] = ""
    min_rating: Annotated[float | None, Field(ge=0, le=5)] = None

    origin: ClassVar[str] = "live"

    def check(self, access: Access) -> None:
        if access.kind not in _SELECTS:
            raise access.fault("kind", "live", "another source: conversations are not recorded live")

    async def gather(self, to: Path, access: Access) -> Gathered:
        for event in _RECORDED:
            await settled(event, access.service)
        path = to / "records.jsonl"
        async with (
            access.service.db.acquire(timeout=5) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            with path.open("wb") as file:
                spool = BoundedFile(file, access, "query")
                async for record in self._select(connection, access):
                    spool.write(json.dumps(record.values(), ensure_ascii=False).encode())
        return Gathered((InputFile(path=path, format="records", name="live"),))

    def _select(self, connection: Connection, access: Access) -> AsyncIterator[Record]:
        select = _SELECTS[access.kind]
        return select(connection, access.domain, self.query, self.min_rating)
