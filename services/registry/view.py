"""What the registry's answers are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """An answer, made from the registry's own values."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class BlobView(View):
    """Content in the object store."""

    uri: str
    sha256: str
    bytes: int


class BaseModelView(View):
    """A base model pinned to exact weights."""

    name: str
    revision: str
