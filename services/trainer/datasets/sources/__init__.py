"""Where the records of a data set come from: seven sources behind one interface (`source.Source`)."""

from typing import Annotated

from pydantic import Field

from services.trainer.datasets.sources.documents import Documents
from services.trainer.datasets.sources.folder import HuggingFaceFolder
from services.trainer.datasets.sources.frozen import Frozen
from services.trainer.datasets.sources.live import Live
from services.trainer.datasets.sources.source import Access, Source
from services.trainer.datasets.sources.sql import SqlQuery
from services.trainer.datasets.sources.upload import S3Prefix, Upload

AnySource = Annotated[
    Upload | S3Prefix | SqlQuery | Documents | HuggingFaceFolder | Live | Frozen, Field(discriminator="kind")
]

__all__ = ["Access", "AnySource", "Frozen", "Live", "Source"]
