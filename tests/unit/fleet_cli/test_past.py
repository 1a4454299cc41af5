"""`lorafleet adapters at`, `adapters hold` and `gc`, on what the services' own code answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from fleet_kit.object_sweep import SweptKind
from services.registry.family import Adapter
from services.registry.policy import Policy
from services.registry.store.listing import Trail
from services.registry.timeline.history import History
from services.registry.version import SemVer
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted
from tests.unit.registry.builders import START, evaluation, submission

pytestmark = pytest.mark.unit

ID = "tax-law-lora-v1.0.0"


def entry(minute: int, action: str, *, actor: str = "anna", active: bool = False, **noted: object) -> Trail:
    status = "pending_review" if action == "registered" else "approved"
    after = {"status": status, "active": active, **noted}
    return Trail(ID, "tax-law", START + timedelta(minutes=minute), actor, action, f"{action} it", {}, after, minute)


def history() -> History:
    trail = [
        entry(0, "registered"),
        entry(20, "approved", evaluation_id="ev-1", policy=asdict(Policy(approve_at=88.0))),
        entry(21, "activated", active=True),
        entry(30, "deactivated"),
    ]
    adapter = Adapter(ID, SemVer(1, 0, 0), submission(), START)
    return History("tax-law-lora", "tax-law", {ID: adapter}, trail, {ID: [evaluation()]}, [])


def test_a_moment_shows_what_served_by_whose_decision_on_what_evidence_and_what_followed(
    against: Lorafleet, service: Scripted
) -> None:
    found = history().at(START + timedelta(minutes=25), 5)
    service.answer("GET /v1/families/tax-law-lora/at", json.loads(found.model_dump_json()))
    result = against("adapters", "at", "tax-law-lora", "2026-01-01T01:25:00+01:00")
    assert result.exit_code == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert f"→ served         {ID}" in lines
    assert "→ since          2026-01-01T00:21:00Z by anna" in lines
    assert "→ approved       2026-01-01T00:20:00Z by anna: approved it" in lines
    assert any(
        line.startswith("→ evidence       90.0 [87.0, 93.0], ev-1 by reference-judge/1 on tax-law-") for line in lines
    )
    assert "→ decided under  confident, approve at 88.0, reject below 70.0" in lines
    assert "→ policy         confident, approve at 85.0, reject below 70.0 (the default: nobody had set one)" in lines
    assert lines[lines.index("decided after") + 1].startswith("2026-01-01T00:30:00Z  deactivated")
    query = parse_qs(urlsplit(service.requests[0].path).query)
    assert query == {"time": ["2026-01-01T01:25:00+01:00"], "entries": ["5"]}


def test_a_moment_at_which_nothing_served_says_so(against: Lorafleet, service: Scripted) -> None:
    found = history().at(START + timedelta(minutes=45), 0)
    service.answer("GET /v1/families/tax-law-lora/at", json.loads(found.model_dump_json()))
    shown = against("adapters", "at", "tax-law-lora", "2026-01-01T00:45:00Z").stdout
    assert "→ served         no version" in shown
    assert f"{ID}  approved" in shown
    assert "decided" not in shown


@pytest.mark.parametrize(("arguments", "apply"), [((), False), (("--dry-run",), False), (("--apply",), True)])
def test_a_collection_is_dry_unless_applied(
    against: Lorafleet, service: Scripted, arguments: tuple[str, ...], apply: bool
) -> None:
    kind = asdict(SweptKind("artifacts", objects=3, bytes=30, referenced=2, unreferenced=1, unreferenced_bytes=10))
    released = [{"adapter_id": ID, "domain": "tax-law", "reason": "rejected, kept for 90 days"}]
    service.answer("POST /v1/gc", {"applied": apply, "grace_hours": 24, "released": released, "kinds": [kind]})
    result = against("gc", *arguments)
    assert result.exit_code == 0, result.stderr
    assert [one.json for one in service.requests] == [{"apply": apply, "at_most": 0}] * 3
    assert f"{ID}  tax-law  rejected, kept for 90 days" in result.stdout
    assert "trainer/artifacts" in result.stdout
    assert ("nothing was deleted" in result.stderr) is not apply


def test_a_collection_confirms_a_number_and_tells_what_would_be_refused(against: Lorafleet, service: Scripted) -> None:
    answer = {"applied": False, "grace_hours": 24, "kinds": [], "refused": "412 of 500 objects would be deleted"}
    service.answer("POST /v1/gc", answer)
    result = against("gc", "--at-most", "412")
    assert [one.json for one in service.requests] == [{"apply": False, "at_most": 412}] * 3
    assert "registry: --apply would be refused: 412 of 500 objects" in result.stderr


def test_objects_are_adopted_by_a_command_of_its_own_that_deletes_nothing(
    against: Lorafleet, service: Scripted
) -> None:
    service.answer("POST /v1/gc/adoption", {"database_id": "db-1", "generation": 8})
    service.answer("POST /v1/gc", {"applied": False, "kinds": []})
    result = against("gc", "--adopt", "trainer")
    assert result.exit_code == 0, result.stderr
    assert "trainer: its objects are those of database db-1 from now on" in result.stderr
    assert [one.path for one in service.requests] == ["/v1/gc/adoption", *["/v1/gc"] * 3]
    assert against("gc", "--adopt", "trainer", "--apply").exit_code == 2
    assert len(service.requests) == 4
