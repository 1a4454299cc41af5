"""Reads what callers send: NDJSON samples as a stream, and training requests with all their faults at once."""

import copy
import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_events import v1
from fleet_kit.errors import Problem
from services.trainer.configuration import Fault, InvalidRequest
from services.trainer.dataset import InvalidSample, Sample
from services.trainer.service import Workshop

MAX_LINE_BYTES = 1024 * 1024
MAX_FAULTS = 20
DOMAIN = r"^[a-z0-9][a-z0-9-]{0,62}$"


class SampleLine(BaseModel):
    """A line of an upload; a field we do not know is a fault, since it is most likely a misspelled one."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    completion: str
    domain: Annotated[str | None, Field(pattern=DOMAIN)] = None
    rating: Annotated[float | None, Field(ge=0, le=5, allow_inf_nan=False)] = None
    id: Annotated[str, Field(max_length=200)] = ""


async def read_samples(body: AsyncIterator[bytes], domain: str | None, *, size: int) -> AsyncIterator[list[Sample]]:
    """Samples of an NDJSON body in batches of at most `size`, whatever the body's length.

    Raises:
        Problem: 422 with the first faults, each with its line. Batches before it were already yielded: whoever
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


def read_request(body: bytes, workshop: Workshop) -> v1.TrainingRequested:
    """The request in a body; raises `InvalidRequest` with the faults of its fields and of the whole together."""
    try:
        raw = json.loads(body)
    except ValueError as error:
        raise InvalidRequest((Fault("body", body[:80].decode(errors="replace"), "a JSON object"),)) from error
    if not isinstance(raw, dict):
        raise InvalidRequest((Fault("body", raw, "a JSON object"),))
    faults = list(_unknown(raw))
    places: list[tuple[int | str, ...]] = []
    try:
        request = v1.TrainingRequested.model_validate(raw)
    except ValidationError as error:
        places = [one["loc"] for one in error.errors()]
        faults += [Fault(".".join(map(str, one["loc"])), one.get("input"), one["msg"]) for one in error.errors()]
    faults += _faults_of_the_rest(raw, places, workshop)
    if faults:
        raise InvalidRequest(tuple(faults))
    return request


def _unknown(raw: dict[str, Any]) -> Iterator[Fault]:
    """Fields that the contract does not have. The bus ignores them, for the sake of newer writers; a caller most
    likely misspelled one, and would train with a default instead."""
    asked = raw.get("hyperparameters")
    for prefix, values, model in (
        ("", raw, v1.TrainingRequested),
        ("hyperparameters.", asked if isinstance(asked, dict) else {}, v1.Hyperparameters),
    ):
        known = {name for field, info in model.model_fields.items() for name in (field, info.alias or field)}
        for name in sorted(values.keys() - known):
            expected = "one of " + ", ".join(sorted(model.model_fields))
            yield Fault(f"{prefix}{name}", values[name], expected)


def _faults_of_the_rest(
    raw: dict[str, Any], places: list[tuple[int | str, ...]], workshop: Workshop
) -> tuple[Fault, ...]:
    """What else is wrong, once the fields at fault are left out: so that a caller mends everything in one go."""
    rest = copy.deepcopy(raw)
    for place in places:
        _drop(rest, place)
    try:
        workshop.examine(v1.TrainingRequested.model_validate({"domain": "unnamed", **rest}))
    except InvalidRequest as more:
        return more.faults
    except ValidationError:
        return ()
    return ()


def _drop(values: Any, place: tuple[int | str, ...]) -> None:
    *path, last = place
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return
        values = values[part]
    if isinstance(values, dict):
        values.pop(last, None)


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; raises a 413 `Problem` for one that grows beyond the limit."""
    number, pending = 0, b""
    async for chunk in body:
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line
        if len(pending) > MAX_LINE_BYTES:
            detail = f"line {number + 1} is over {MAX_LINE_BYTES} bytes; nothing was recorded"
            raise Problem(413, "Line too long", detail, line=number + 1)
    if pending.strip():
        yield number + 1, pending


def _sample(line: bytes, domain: str | None) -> Sample:
    parsed = SampleLine.model_validate_json(line)
    named = parsed.domain or domain
    if not named:
        raise InvalidSample("domain", "absent", "a domain in the line or in ?domain=")
    sample = Sample(named, parsed.prompt, parsed.completion, parsed.rating, "http", parsed.id)
    sample.check()
    return sample


def _plain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'line'}: {one['msg']}" for one in error.errors())
