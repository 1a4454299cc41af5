"""`lorafleet evaluations replay`: recorded and replayed verdicts side by side, and the exit status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.fleet_cli.conftest import Lorafleet, Scripted

pytestmark = pytest.mark.unit

HEAD = {"judge": "gpt/1+aa", "replayed_by": "gpt/1+aa", "again": False, "samples": 2, "requests": 2}


def verdict(overall: float | None, standing: str = "decided") -> dict[str, Any]:
    return {"standing": standing, "overall": overall, "criteria": {}, "vetoes": [], "why": "", "pair": None}


def sample(number: int, replayed: dict[str, Any] | None, *, agrees: bool, missing: str = "") -> dict[str, Any]:
    of_it = {"sample_id": f"s{number}", "recorded": verdict(90.0), "replayed": replayed}
    return of_it | {"agrees": agrees, "missing": missing}


def script(service: Scripted, *events: dict[str, Any]) -> None:
    body = "".join(f"data: {json.dumps(event)}\n\n: under way\n\n" for event in events)
    service.answer("POST /v1/evaluations/e-1/replay", body.encode(), 200, "text/event-stream")


def test_verdicts_that_agree_are_listed_and_exit_with_0(against: Lorafleet, service: Scripted) -> None:
    script(service, HEAD, sample(1, verdict(90.0), agrees=True), sample(2, verdict(90.0), agrees=True))
    shown = against("evaluations", "replay", "e-1")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines()[1].split() == ["s1", "90.0", "90.0", "agrees", "–"]
    assert service.requests[0].json == {"sample_id": "", "again": False}


@pytest.mark.parametrize(
    ("second", "row"),
    [
        (sample(2, verdict(40.0), agrees=False), ["s2", "90.0", "40.0", "differs", "–"]),
        (
            sample(2, None, agrees=False, missing="it is gone"),
            ["s2", "90.0", "–", "not", "replayed", "it", "is", "gone"],
        ),
    ],
)
def test_one_that_differs_or_cannot_be_replayed_exits_with_1(
    against: Lorafleet, service: Scripted, second: dict[str, Any], row: list[str]
) -> None:
    script(service, HEAD, sample(1, verdict(90.0), agrees=True), second)
    shown = against("evaluations", "replay", "e-1", "--sample", "s2")
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[2].split() == row
    assert service.requests[0].json == {"sample_id": "s2", "again": False}


def test_asked_again_the_number_of_requests_comes_first_and_the_cost_last(
    against: Lorafleet, service: Scripted
) -> None:
    spent = {"requests": 2, "prompt_tokens": 2000, "answer_tokens": 200, "cost": 0.006, "seconds": 1.0}
    script(service, HEAD | {"again": True}, sample(1, verdict(90.0), agrees=True), {"spent": spent})
    shown = against("evaluations", "replay", "e-1", "--again")
    assert shown.exit_code == 0
    first, last = shown.stderr.splitlines()
    assert first == "sends 2 requests to gpt/1+aa (or fewer, within its budget)"
    assert last == "2 requests, 2000 and 200 tokens, cost 0.006"
    [printed] = [json.loads(against("evaluations", "replay", "e-1", "--again", "--json").stdout)]
    assert printed["spent"] == spent
