"""`lorafleet adapters rollout`: what it sends, what it shows and what it refuses before sending anything."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from services.registry.rollout.schemas import FamilyRollouts, RolloutDetails
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted
from tests.unit.registry.builders import START
from tests.unit.registry.test_rollouts import SECOND, begun, counted, running

PATH = "/v1/families/tax-law-lora/rollout"


def told() -> object:
    """What the registry answers of a canary at its first step."""
    outcomes = counted((1, 40), (5, 4000))
    details = RolloutDetails.of(running(begun().family), outcomes, START + timedelta(seconds=30))
    return FamilyRollouts.of("tax-law-lora", details, ()).model_dump(mode="json")


def test_a_rollout_is_shown_with_its_step_its_evidence_and_what_it_waits_for(
    against: Lorafleet, service: Scripted
) -> None:
    service.answer(f"GET {PATH}", told())
    shown = against("adapters", "rollout", "tax-law-lora")
    assert shown.exit_code == 0
    for part in (SECOND, "1 of 3, 1.0% of the callers", "error_rate", "0.025", "4000"):
        assert part in shown.stdout
    found = json.loads(against("adapters", "rollout", "tax-law-lora", "--json").stdout)
    assert found["rollout"]["evidence"][0]["candidate_outcomes"] == 40


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("pause",), f"{PATH}/pause", {"reason": ""}),
        (("roll-back", "--reason", "complaints"), f"{PATH}/roll-back", {"reason": "complaints"}),
        (
            ("start", "--candidate", SECOND, "--mode", "ab"),
            PATH,
            {"candidate": SECOND, "mode": "ab", "reason": ""},
        ),
    ],
)
def test_each_action_goes_to_its_route(
    against: Lorafleet, service: Scripted, arguments: tuple[str, ...], path: str, body: object
) -> None:
    service.answer(f"POST {path}", told())
    assert against("adapters", "rollout", "tax-law-lora", *arguments).exit_code == 0
    assert json.loads(service.requests[0].body) == body


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("pause", "--candidate", SECOND), "--candidate"),
        (("promote", "--mode", "ab"), "--mode"),
        (("roll-back",), "--reason"),
    ],
)
def test_what_does_not_go_together_is_refused_before_it_is_sent(
    against: Lorafleet, service: Scripted, arguments: tuple[str, ...], field: str
) -> None:
    result = against("adapters", "rollout", "tax-law-lora", *arguments)
    assert (result.exit_code, field in result.stderr) == (2, True)
    assert service.requests == []


def test_a_family_without_a_rollout_is_told_so(against: Lorafleet, service: Scripted) -> None:
    service.answer(f"GET {PATH}", {"family": "tax-law-lora", "rollout": None, "earlier": []})
    assert "no version was rolled out yet" in against("adapters", "rollout", "tax-law-lora").stdout
