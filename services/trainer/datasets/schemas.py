"""What the HTTP answers about samples and data sets look like."""

from datetime import datetime
from typing import Self

from services.trainer.datasets.build_fault import BuildFault
from services.trainer.datasets.build_state import BuildState, DatasetBuild
from services.trainer.datasets.dataset import StoredDataset, StoredUpload
from services.trainer.schemas import BlobView, View


class SamplesView(View):
    """What became of an upload. A duplicate was recorded before, in this upload or an earlier one.

    `forgotten` ones are about people who had their records erased: they were not recorded.
    """

    received: int
    added: int
    duplicates: int
    forgotten: int = 0


class DatasetView(View):
    """A version of a data set, and the selection of live records that made it, if one did."""

    dataset_id: str
    domain: str
    name: str
    version: int
    kind: str
    query: str
    min_rating: float | None
    samples: int
    validation_samples: int
    blob: BlobView
    card: BlobView | None
    created_at: datetime
    removed_at: datetime | None
    removed_because: str

    @classmethod
    def of(cls, stored: StoredDataset) -> Self:
        return cls(
            dataset_id=stored.dataset.dataset_id,
            domain=stored.domain,
            name=stored.name,
            version=stored.version,
            kind=stored.dataset.kind,
            query=stored.query,
            min_rating=stored.min_rating,
            samples=stored.dataset.samples,
            validation_samples=stored.dataset.validation_samples,
            blob=BlobView.of(stored.dataset.blob),
            card=BlobView.of(stored.dataset.card) if stored.dataset.card else None,
            created_at=stored.created_at,
            removed_at=stored.removed_at,
            removed_because=stored.removed_because,
        )


class UploadView(View):
    """An uploaded file, by the id that recipes name."""

    upload_id: str
    domain: str
    filename: str
    format: str
    bytes: int
    created_at: datetime
    erased_by: tuple[str, ...] = ()
    """Erasures that took rows about people out of it."""

    @classmethod
    def of(cls, kept: StoredUpload) -> Self:
        return cls(
            upload_id=kept.upload_id,
            domain=kept.domain,
            filename=kept.filename,
            format=kept.format,
            bytes=kept.blob.bytes,
            created_at=kept.created_at,
            erased_by=kept.erased_by,
        )


class BuildQueued(View):
    """A recipe that waits to be built."""

    build_id: str


class BuildView(View):
    """Where a build stands: the data set's id and version once it has succeeded, the faults once it has failed."""

    build_id: str
    state: BuildState
    domain: str
    name: str
    dataset_id: str | None
    version: int | None
    faults: tuple[BuildFault, ...]
    attempts: int
    requested_by: str
    recipe: dict[str, object]
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, build: DatasetBuild) -> Self:
        return cls(
            build_id=build.build_id,
            state=build.state,
            domain=build.recipe.domain,
            name=build.recipe.name,
            dataset_id=build.dataset_id,
            version=build.version,
            faults=build.faults,
            attempts=build.attempts,
            requested_by=build.requested_by,
            recipe=build.recipe.model_dump(mode="json"),
            created_at=build.created_at,
            finished_at=build.finished_at,
        )
