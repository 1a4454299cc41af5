"""Requests of `/v1/files` and `/v1/batches`, and pages of their lists."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field

from services.inference.batches.records import BatchRecord, FileRecord
from services.inference.errors import BadRequest
from services.inference.http.parameters import Body
from services.inference.http.schemas import Metadata

R = TypeVar("R", FileRecord, BatchRecord)


class ExpiresAfter(Body):
    """How long a file is kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class FileForm(Body):
    """The fields of POST /v1/files beside the file."""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["batch"]
    expires_after: ExpiresAfter | None = None


class BatchRequest(Body):
    """POST /v1/batches."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=200)]
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


def page(records: Sequence[R], after: str | None, limit: int) -> dict[str, object]:
    """The records behind `after`, at most `limit`; raises `BadRequest` where that is none of them."""
    ids = [one.id for one in records]
    if after is not None and after not in ids:
        raise BadRequest(f"after is {after[:80]!r}, which is not in the list.", code="invalid_value", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    shown = records[begin : begin + limit]
    return {
        "object": "list",
        "data": [one.shown() for one in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": begin + limit < len(records),
    }
