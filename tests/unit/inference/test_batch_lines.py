"""Lines of a batch's file are checked before anything runs, and every fault has its line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.inference.batches.lines import body_of, check
from services.inference.batches.records import MOST_ERRORS
from services.inference.http.schemas import ChatRequest

pytestmark = pytest.mark.unit

CHAT = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


def line(custom_id: str = "a", **changes: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": BODY} | changes


def written(folder: Path, *lines: object) -> Path:
    path = folder / "input"
    path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines))
    return path


def faults(folder: Path, *lines: object, most_lines: int = 10, most_bytes: int = 10_000) -> list[tuple[Any, ...]]:
    checked = check(written(folder, *lines), CHAT, most_lines=most_lines, most_bytes=most_bytes)
    return [(one.line, one.code, one.param) for one in checked.faults]


def test_valid_lines_are_found_again_by_their_place(tmp_path: Path) -> None:
    second = line("b", body=BODY | {"model": "other", "messages": [{"role": "user", "content": "日"}]})
    path = written(tmp_path, line("a"), b"\r\n", second)
    checked = check(path, CHAT, most_lines=2, most_bytes=1000)
    assert (checked.faults, [one.custom_id for one in checked.lines], checked.model) == ([], ["a", "b"], None)
    body = body_of(path, checked.lines[1], CHAT)
    assert isinstance(body, ChatRequest)
    assert (body.model, body.messages[0].text) == ("other", "日")
    assert check(written(tmp_path, line()), CHAT, most_lines=1, most_bytes=1000).model == "tiny"


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{\n", "invalid_json_line", None),
        (b"\xff\n", "invalid_json_line", None),
        (b'"text"\n', "invalid_request", ""),
        (line(more=1), "invalid_request", "more"),
        (line(custom_id=""), "invalid_request", "custom_id"),
        (line(custom_id="first"), "duplicate_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/completions"), "mismatched_endpoint", "url"),
        (line(url="/v1/audio"), "invalid_url", "url"),
        (line(body=[]), "invalid_request", "body"),
        (line(body=BODY | {"temperature": 9}), "invalid_request", "body.temperature"),
        (line(body=BODY | {"temprature": 1}), "invalid_request", "body.temprature"),
        (line(body=BODY | {"stream": True}), "stream_not_supported", "body.stream"),
    ],
)
def test_a_fault_names_its_line_and_field(tmp_path: Path, bad: object, code: str, param: str | None) -> None:
    assert faults(tmp_path, line("first"), bad) == [(2, code, param)]


def test_files_beyond_the_bounds_are_refused(tmp_path: Path) -> None:
    assert faults(tmp_path) == [(None, "empty_file", None)]
    assert faults(tmp_path, line("a"), line("b"), most_lines=1) == [(None, "too_many_requests", None)]
    assert faults(tmp_path, line("a"), line("b" * 300), most_bytes=250) == [(2, "line_too_long", None)]
    many = [line(str(number), method="GET") for number in range(MOST_ERRORS + 5)]
    assert len(faults(tmp_path, *many, most_lines=1000)) == MOST_ERRORS
