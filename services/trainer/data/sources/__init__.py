"""Where the records of a data set come from: six sources behind one interface (`source.Source`)."""

from typing import Annotated

from pydantic import Field

from services.trainer.data.sources.documents import Documents
from services.trainer.data.sources.folder import HuggingFaceFolder
from services.trainer.data.sources.live import Live
from services.trainer.data.sources.source import Access, Source
from services.trainer.data.sources.sql import SqlQuery
from services.trainer.data.sources.upload import S3Prefix, Upload

AnySource = Annotated[Upload | S3Prefix | SqlQuery | Documents | HuggingFaceFolder | Live, Field(discriminator="kind")]

__all__ = ["Access", "AnySource", "Live", "Source"]
