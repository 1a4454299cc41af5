"""The data card of a data set as it is stored: what the report repeats, and what exports are held to."""

import structlog
from pydantic import JsonValue, TypeAdapter, ValidationError

from fleet_events import v1
from fleet_kit.errors import BlobCorrupt, BlobMissing
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.golden.index import THRESHOLD
from services.trainer.retry import patiently

StoredCard = dict[str, JsonValue]
_CARD: TypeAdapter[StoredCard] = TypeAdapter(StoredCard)
_LARGEST = 1024 * 1024
log = structlog.get_logger()


async def read_data_card(dataset: v1.Dataset, service: DatasetContext) -> StoredCard:
    """The card; empty where the data set has none, or none that can be read.

    A training without its data card is worth more than one that ends for want of it.
    """
    blob = dataset.card
    if blob is None or blob.bytes > _LARGEST:
        return {}
    try:
        seconds = service.settings.patience_seconds
        return _CARD.validate_json(await patiently("data card", lambda: service.blobs.get(blob), seconds=seconds))
    except (BlobMissing, BlobCorrupt, ValidationError) as error:
        log.warning("data_card_unreadable", dataset=dataset.dataset_id, uri=blob.uri, reason=str(error))
        return {}


def golden_threshold_of(card: StoredCard) -> float:
    """Similarity from which on the data set's build dropped records as golden; the default without a card."""
    filters = card.get("filters")
    golden = filters.get("golden") if isinstance(filters, dict) else None
    found = golden.get("threshold") if isinstance(golden, dict) else None
    return float(found) if isinstance(found, int | float) and 0.5 <= found <= 0.95 else THRESHOLD


def adapter_type_of(card: StoredCard) -> str:
    """What kind of adapter the data was prepared for (AS-3.1); empty where its card has none."""
    found = card.get("adapter_type")
    return found if isinstance(found, str) else ""
