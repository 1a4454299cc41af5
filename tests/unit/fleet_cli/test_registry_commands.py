"""Commands about versions and the registry as a whole: metrics, audit trails, refusals, statistics."""

from __future__ import annotations

import pytest

from tests.unit.fleet_cli import recorded
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted

pytestmark = pytest.mark.unit

ADAPTER, ADAPTER_ID = recorded.active_adapter(), recorded.ADAPTER_ID


@pytest.mark.requirement("LA-1.7")
def test_own_metrics_are_sent_with_their_interval_and_shown_beside_the_fleets(
    against: Lorafleet, service: Scripted
) -> None:
    own = {"value": 0.93, "ci_low": 0.9, "ci_high": 0.96, "samples": 300, "note": "", "set_by": "anna", "set_at": "now"}
    service.answer(f"PUT /v1/adapters/{ADAPTER_ID}/metrics", ADAPTER | {"own_metrics": {"citations": own}})
    shown = against(
        *("adapters", "metrics", ADAPTER_ID, "--set", "citations=0.93,0.9,0.96,300", "--set", "complaints=3"),
        *("--remove", "old", "--note", "by hand", "--reason", "review"),
    )
    assert shown.exit_code == 0, shown.stderr
    assert service.requests[0].json == {
        "metrics": {
            "citations": {"value": 0.93, "ci_low": 0.9, "ci_high": 0.96, "samples": 300, "note": "by hand"},
            "complaints": {"value": 3.0, "note": "by hand"},
            "old": None,
        },
        "reason": "review",
    }
    line = next(line for line in shown.stdout.splitlines() if line.startswith("citations"))
    assert line.split() == ["citations", "0.93", "0.9", "to", "0.96", "300", "anna", "now", "–"]
    assert "llm_judge_score" in shown.stdout


@pytest.mark.parametrize("given", ["citations", "citations=much", "=1", "a=1,2", "a=1,0,2,2.5"])
def test_a_metric_that_cannot_be_read_is_refused(against: Lorafleet, service: Scripted, given: str) -> None:
    refused = against("adapters", "metrics", ADAPTER_ID, "--set", given)
    assert refused.exit_code == 2
    assert service.requests == []


def test_an_audit_trail_shows_only_what_changed(against: Lorafleet, service: Scripted) -> None:
    before = {"approve_at": 85.0, "mode": "confident"}
    line = {"at": "2026-01-01", "actor": "anna", "action": "policy_set", "reason": "", "before": before}
    service.answer("GET /v1/policies/tax/audit", {"entries": [line | {"after": before | {"approve_at": 90.0}}]})
    shown = against("policies", "audit", "tax").stdout
    assert "approve_at: 85.0 → 90.0" in shown
    assert "mode" not in shown
    service.answer(f"GET /v1/adapters/{ADAPTER_ID}/audit", {"entries": [line | {"after": {}, "before": {}}]})
    assert "anna" in against("adapters", "audit", ADAPTER_ID).stdout


def test_refusals_and_statistics_are_tables(against: Lorafleet, service: Scripted) -> None:
    refusal = {"job_id": "job-1", "domain": "tax", "field": "artifact.rank", "reason": "too large", "at": "now"}
    service.answer("GET /v1/refusals", {"refusals": [refusal]})
    assert "artifact.rank" in against("adapters", "refusals", "--domain", "tax").stdout
    assert service.requests[0].path == "/v1/refusals?domain=tax&limit=100"
    counted = {"domain": "", "answers": 7, "average_rating": 4.25}
    service.answer("GET /v1/statistics", {"families": 1, "versions": 0, "domains": [counted]})
    row = against("registry", "statistics").stdout.splitlines()[1].split()
    assert (row[:2], row[-1]) == (["(base", "model)"], "4.25")


def test_updates_are_listed_with_where_they_run_and_why(against: Lorafleet, service: Scripted) -> None:
    update = {"running": ADAPTER_ID, "active": True, "held_by": ["r-1", "r-2"], "available": "b", "recommended": True}
    service.answer("GET /v1/updates", {"updates": [update | {"why": "better: +4.0 points"}]})
    row = against("adapters", "updates").stdout.splitlines()[1].split()
    assert row == [ADAPTER_ID, "active", "r-1,", "r-2", "b", "yes", "better:", "+4.0", "points"]


@pytest.mark.requirement("AS-9.1")
@pytest.mark.parametrize(("given", "sent"), [((), None), (("--strategy", "convert"), "convert")])
def test_a_migration_is_requested_with_its_strategy(
    against: Lorafleet, service: Scripted, given: tuple[str, ...], sent: str | None
) -> None:
    made = {"migration_id": "m-1", "adapter_id": ADAPTER_ID, "to_base_model": "next", "strategy": "retrain"}
    service.answer("POST /v1/migrations", made | {"state": "training", "job_id": "migration-m-1"}, 202)
    shown = against("adapters", "migrate", ADAPTER_ID, "--to-base-model", "next", *given)
    assert shown.exit_code == 0, shown.stderr
    assert "training job migration-m-1" in shown.stdout
    assert service.requests[0].json == {
        "adapter_id": ADAPTER_ID, "to_base_model": "next", "strategy": sent, "reason": ""
    }  # fmt: skip
    service.answer("GET /v1/migrations", {"migrations": [made | {"state": "failed", "error": "no data"}]})
    assert "no data" in against("adapters", "migrations", "--domain", "tax").stdout
