"""What the HTTP answers of all wings share."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from fleet_events import v1


class View(BaseModel):
    """A part of an HTTP answer."""

    model_config = ConfigDict(frozen=True)


class BlobView(View):
    """An object and its digest."""

    uri: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, blob: v1.Blob) -> Self:
        return cls(uri=blob.uri, sha256=blob.sha256, bytes=blob.bytes)
