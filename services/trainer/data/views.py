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
    """A frozen data set and the selection that first made it."""

    dataset_id: str
    domain: str
    query: str
    min_rating: float | None
    samples: int
    blob: BlobView
    created_at: datetime

    @classmethod
    def of(cls, stored: StoredDataset) -> Self:
        return cls(
            dataset_id=stored.dataset.dataset_id,
            domain=stored.domain,
            query=stored.query,
            min_rating=stored.min_rating,
            samples=stored.dataset.samples,
            blob=BlobView.of(stored.dataset.blob),
            created_at=stored.created_at,
        )
