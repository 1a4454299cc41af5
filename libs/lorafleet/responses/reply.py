"""What every answer of a service has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    """An answer; unknown fields are kept, so that a newer service loses nothing here."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Anything(Reply):
    """An answer that is shown, never computed with."""
