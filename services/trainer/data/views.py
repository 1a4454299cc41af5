"""What the HTTP answers about samples and data sets look like."""

from datetime import datetime
from typing import Self

from services.trainer.data.dataset import StoredDataset
from services.trainer.views import BlobView, View


class SamplesView(View):
    """What became of an upload. A duplicate was recorded before, in this upload or an earlier one."""

    received: int
    added: int
    duplicates: int


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
        )
