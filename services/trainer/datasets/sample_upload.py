"""Reads what callers send as samples: NDJSON as a stream, with the faults of each line."""

import codecs
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_events.strict_json import read_json
from fleet_events.v1 import DomainName
from fleet_kit.errors import Problem
from services.trainer.datasets.dataset import InvalidSample, Sample

MAX_LINE_BYTES = 1024 * 1024
MAX_FAULTS = 20


class SampleLine(BaseModel):
    """A line of an upload; a field we do not know is a fault, since it is most likely a misspelled one."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    completion: str
    domain: DomainName | None = None
    rating: Annotated[float | None, Field(ge=0, le=5, allow_inf_nan=False)] = None
    id: Annotated[str | None, Field(max_length=200)] = None
    subject: Annotated[str, Field(max_length=512)] = ""
    """Person whom it is about: `lorafleet data forget` finds it by this."""


async def read_samples(body: AsyncIterator[bytes], domain: str | None, *, size: int) -> AsyncIterator[list[Sample]]:
    """Samples of an NDJSON body in batches of at most `size`, for a body of any length.

    Raises:
        Problem: 422 with the first faults, each with its line. Batches before it were already yielded: a caller that
            stores them must undo that.
    """
    faults: list[dict[str, object]] = []
    batch: list[Sample] = []
    async for number, line in _lines(body):
        try:
            batch.append(_sample(line, domain))
        except ValueError as error:
            faults.append({"line": number, "message": _plain(error)})
            if len(faults) >= MAX_FAULTS:
                break
        if len(batch) >= size and not faults:
            yield batch
            batch = []
    if faults:
        detail = "; ".join(f"line {fault['line']}: {fault['message']}" for fault in faults)
        raise Problem(422, "Invalid samples", f"nothing was recorded; {detail}", faults=faults)
    if batch:
        yield batch


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; raises a 413 `Problem` for one that grows beyond the limit."""
    number, pending = 0, b""
    async for chunk in body:
        *whole, pending = (pending + chunk).split(b"\n")
        for ended in whole:
            number += 1
            line = ended.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, line
        if len(pending) > MAX_LINE_BYTES:
            detail = f"line {number + 1} is over {MAX_LINE_BYTES} bytes; nothing was recorded"
            raise Problem(413, "Line too long", detail, line=number + 1)
    pending = pending.removeprefix(codecs.BOM_UTF8)
    if pending.strip():
        yield number + 1, pending


def _sample(line: bytes, domain: str | None) -> Sample:
    parsed = SampleLine.model_validate_json(line)
    read_json(line)
    named = parsed.domain or domain
    if not named:
        raise InvalidSample("domain", "absent", "a domain in the line or in ?domain=")
    sample = Sample(
        named, parsed.prompt, parsed.completion, parsed.rating, "http", parsed.id or "", subject=parsed.subject
    )
    sample.check()
    return sample


def _plain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'line'}: {one['msg']}" for one in error.errors())
