"""The lines of a batch's file, checked before any of them runs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fleet_events.strict_json import read_json
from services.inference.batches.records import MOST_ERRORS, LineFault
from services.inference.http.responses.request import ResponseRequest
from services.inference.http.schemas import ChatRequest, CompletionRequest

BODIES: Mapping[str, type[ChatRequest] | type[CompletionRequest] | type[ResponseRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponseRequest,
}
"""Endpoint → its body."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    custom_id: str = Field(min_length=1, max_length=512)
    method: str
    url: str
    body: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class LineAt:
    """Where a line lies in its file, in bytes."""

    custom_id: str
    offset: int
    length: int


@dataclass(slots=True)
class Checked:
    """The lines, and what is wrong with them: any fault, and nothing is run. model: of all of them, if it is one."""

    lines: list[LineAt] = field(default_factory=list)
    faults: list[LineFault] = field(default_factory=list)
    models: set[str] = field(default_factory=set)

    @property
    def model(self) -> str | None:
        return next(iter(self.models)) if len(self.models) == 1 else None


def check(path: Path, endpoint: str, *, most_lines: int, most_bytes: int) -> Checked:
    """Read a file of JSON lines. Blank lines are passed over; at most `MOST_ERRORS` faults are looked for."""
    checked, ids = Checked(), Counter[str]()
    for number, offset, content in _lines(path, most_bytes):
        if len(checked.lines) >= most_lines:
            message = f"the file has more than {most_lines} requests"
            checked.faults.append(LineFault(code="too_many_requests", message=message))
            return checked
        if isinstance(content, LineFault):
            checked.faults.append(content)
        else:
            checked.faults += _faults(number, offset, content, endpoint, checked, ids)
        if len(checked.faults) >= MOST_ERRORS:
            return checked
    if not checked.lines and not checked.faults:
        checked.faults.append(LineFault(code="empty_file", message="the file has no requests"))
    return checked


def body_of(path: Path, line: LineAt, endpoint: str) -> ChatRequest | CompletionRequest | ResponseRequest:
    """The request of a line that was checked."""
    with path.open("rb") as file:
        file.seek(line.offset)
        return BODIES[endpoint].model_validate(_Line.model_validate(read_json(file.read(line.length))).body)


def _lines(path: Path, most_bytes: int) -> Iterator[tuple[int, int, bytes | LineFault]]:
    """(number from 1 on, offset, line); a fault in the place of one that is too long, after which none is read."""
    offset = number = 0
    with path.open("rb") as file:
        while content := file.readline(most_bytes + 2):
            number += 1
            if len(content.rstrip(b"\r\n")) > most_bytes:
                message = f"the line has more than {most_bytes} bytes"
                yield number, offset, LineFault(code="line_too_long", message=message, line=number)
                return
            if content.strip():
                yield number, offset, content
            offset += len(content)


def _faults(  # noqa: PLR0917
    number: int, offset: int, content: bytes, endpoint: str, checked: Checked, ids: Counter[str]
) -> Iterator[LineFault]:
    def fault(code: str, message: str, param: str | None = None) -> LineFault:
        return LineFault(code=code, message=message[:500], param=param, line=number)

    try:
        line = _Line.model_validate(read_json(content))
    except ValidationError as error:
        for param, message in _named(error):
            yield fault("invalid_request", message, param)
        return
    except ValueError as error:
        yield fault("invalid_json_line", f"not a line of JSON: {error}")
        return
    checked.lines.append(LineAt(line.custom_id, offset, len(content)))
    ids[line.custom_id] += 1
    if ids[line.custom_id] > 1:
        yield fault("duplicate_custom_id", "an earlier line has the same custom_id", "custom_id")
    if line.method != "POST":
        yield fault("invalid_method", "method must be POST", "method")
    if line.url != endpoint:
        code = "mismatched_endpoint" if line.url in BODIES else "invalid_url"
        yield fault(code, f"url must be the batch's endpoint, {endpoint}", "url")
        return
    try:
        body = BODIES[endpoint].model_validate(line.body)
    except ValidationError as error:
        for param, message in _named(error):
            yield fault("invalid_request", message, f"body.{param}" if param else "body")
        return
    if body.stream:
        yield fault("stream_not_supported", "answers of a batch are not streamed; leave stream out", "body.stream")
    checked.models.add(body.model)


def _named(error: ValidationError) -> Iterator[tuple[str, str]]:
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        yield ".".join(map(str, one["loc"])), one["msg"]
