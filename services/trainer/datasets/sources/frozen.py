"""A data set that the domain has frozen before."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from services.trainer.datasets import records
from services.trainer.datasets.sources.source import Access, BoundedFile, Gathered, Source
from services.trainer.datasets.store import versions as store
from services.trainer.datasets.worker.spec import InputFile


class Frozen(Source):
    """All records of a data set of the domain, by its id; whose split is not kept: the recipe draws its own."""

    kind: Literal["dataset"] = "dataset"
    dataset_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    origin: ClassVar[str] = "dataset"

    async def gather(self, to: Path, access: Access) -> Gathered:
        async with access.service.db.acquire(timeout=5) as connection:
            found = await store.find_dataset(connection, self.dataset_id)
        if found is None or found.domain != access.domain:
            raise access.fault("dataset_id", self.dataset_id, f"the id of a data set of domain {access.domain!r}")
        if found.removed_at is not None:
            expected = f"a data set whose records are kept; these were removed: {found.removed_because}"
            raise access.fault("dataset_id", self.dataset_id, expected)
        if found.dataset.kind != access.kind.value:
            raise access.fault("dataset_id", f"{self.dataset_id} ({found.dataset.kind})", f"one of kind {access.kind}")
        path = await access.service.blobs.fetch(found.dataset.blob, to / "data.parquet")
        lines = to / "records.jsonl"
        await asyncio.to_thread(_write_lines, path, lines, access)
        path.unlink()
        return Gathered((InputFile(path=lines, format="records", name=f"{found.name} {found.version}"),))


def _write_lines(path: Path, lines: Path, access: Access) -> None:
    with lines.open("wb") as file:
        spool = BoundedFile(file, access, "dataset_id")
        for record in records.read(path):
            spool.write(json.dumps(record.values(), ensure_ascii=False).encode())
