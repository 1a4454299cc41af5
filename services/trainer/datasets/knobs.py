"""The base of what recipes set of filters and generators."""

from pydantic import BaseModel, ConfigDict


class Knobs(BaseModel):
    """Settings of a filter or a generator. A name that does not exist is a fault: most likely it is misspelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")
