"""Decisions of people and policies over HTTP: approve, reject, activate, and what the audit trail keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import UNJUDGED, Upstream, eventually, permit_unjudged
from tests.integration.registry.uploads import upload

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-1.5")
async def test_humans_decide_and_the_audit_trail_says_who_when_why_before_and_after(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    first = (await upload(registry.client, peft, domain=domain)).json()
    name = first["adapter_id"]
    early = await registry.client.post(f"/v1/adapters/{name}/activate", json={})
    assert (early.status_code, early.json()["field"]) == (409, "status")
    await upstream.publish(upstream.scored(first, 80))

    async def scored() -> bool:
        return bool((await registry.client.get(f"/v1/adapters/{name}")).json()["evaluation"])

    await eventually(scored)
    for step, reason in (
        ("approve", "ten answers checked"),
        ("deactivate", "holiday"),
        ("activate", "back"),
        ("reject", "law repealed"),
    ):
        answer = await registry.client.post(f"/v1/adapters/{name}/{step}", json={"reason": reason})
        assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "rejected"
    for step in ("approve", "activate"):
        again = await registry.client.post(f"/v1/adapters/{name}/{step}", json={})
        assert again.status_code == 409
    entries = (await registry.client.get(f"/v1/adapters/{name}/audit")).json()["entries"]
    asked = entries.pop(1)
    assert (asked["action"], asked["actor"]) == ("review_requested", "automated-pipeline")
    assert [(entry["action"], entry["reason"]) for entry in entries] == [
        ("registered", "uploaded"),
        ("approved", "ten answers checked"),
        ("activated", "ten answers checked"),
        ("deactivated", "holiday"),
        ("activated", "back"),
        ("deactivated", "law repealed"),
        ("rejected", "law repealed"),
    ]
    assert {entry["actor"] for entry in entries} == {"admin"}
    assert entries[1]["before"] == {"status": "pending_review", "active": False}
    assert entries[2]["after"] == {"status": "approved", "active": True}
    assert [entry["revision"] for entry in entries] == [1, 3, 4, 5, 6, 7, 8]

    async def all_published() -> Any:
        events = await upstream.published(v1.AdapterActivated, v1.AdapterDeactivated, v1.Rejected, domain=domain)
        return events if len(events) == 5 else None

    events = await eventually(all_published)
    assert [type(event).__name__ for event in sorted(events, key=lambda event: event.revision)] == [
        "AdapterActivated",
        "AdapterDeactivated",
        "AdapterActivated",
        "AdapterDeactivated",
        "Rejected",
    ]


@pytest.mark.requirement("LA-5.1")
async def test_a_domain_s_policy_is_set_audited_and_obeyed(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    default = (await registry.client.get(f"/v1/policies/{domain}")).json()
    assert (default["mode"], default["approve_at"], default["reject_below"]) == ("confident", 85, 70)
    assert (default["minimum_samples"], default["smallest_relevant_difference"]) == (20, 2)
    named = await registry.client.put(f"/v1/policies/{domain}", json={"blocking_criteria": ["humour"]})
    assert (named.status_code, named.json()["field"]) == (422, "blocking_criteria")
    wrong = await registry.client.put(f"/v1/policies/{domain}", json={"approve_at": 60})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "reject_below")
    unknown = await registry.client.put(f"/v1/policies/{domain}", json={"aprove_at": 60})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "aprove_at")
    strict = {"mode": "confident", "approve_at": 90, "reject_below": 50, "activate_on_approval": False}
    assert (await registry.client.put(f"/v1/policies/{domain}", json=strict)).status_code == 200
    audit = (await registry.client.get(f"/v1/policies/{domain}/audit")).json()["entries"]
    assert (audit[0]["before"]["approve_at"], audit[0]["after"]["approve_at"]) == (85, 90)
    first, second = [(await upload(registry.client, peft, domain=domain)).json() for _ in range(2)]
    await upstream.publish(upstream.scored(first, 92))  # interval 89 to 95: not wholly above 90
    await upstream.publish(upstream.scored(second, 96))

    async def decided() -> Any:
        found = [(await registry.client.get(f"/v1/adapters/{one['adapter_id']}")).json() for one in (first, second)]
        return found if all(one["evaluation"] for one in found) else None

    one, two = await eventually(decided)
    assert one["status"] == "pending_review"
    assert (two["status"], two["active"]) == ("approved", False)


@pytest.mark.requirement("LA-5.1")
async def test_scores_of_a_judge_that_disagrees_with_people_wait_for_a_human(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    policy = {"mode": "confident", "minimum_agreement": 0.6, "activate_on_approval": False}
    assert (await registry.client.put(f"/v1/policies/{domain}", json=policy)).status_code == 200
    agreeing, disagreeing, unknown = [(await upload(registry.client, peft, domain=domain)).json() for _ in range(3)]
    good, poor = (v1.Agreement(answers=40, alpha=0.8, ci_low=low, ci_high=0.9) for low in (0.7, 0.3))
    await upstream.publish(upstream.scored(agreeing, 96, agreement=good))
    await upstream.publish(upstream.scored(disagreeing, 96, agreement=poor))
    await upstream.publish(upstream.scored(unknown, 96))

    async def decided() -> Any:
        found = [
            (await registry.client.get(f"/v1/adapters/{one['adapter_id']}")).json()
            for one in (agreeing, disagreeing, unknown)
        ]
        return found if all(one["evaluation"] for one in found) else None

    found = await eventually(decided)
    assert [one["status"] for one in found] == ["approved", "pending_review", "pending_review"]
    asked = await eventually(lambda: upstream.published(v1.ReviewRequested, domain=domain))
    reasons = {event.adapter_id: event.reason for event in asked}
    assert "below the policy's minimum of 0.6" in reasons[disagreeing["adapter_id"]]


@pytest.mark.requirement("LA-1.5")
async def test_an_approval_without_an_evaluation_is_express_permitted_by_the_policy_and_audited_with_its_reason(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    name = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]

    async def approve(**body: object) -> tuple[int, Any]:
        answer = await registry.client.post(f"/v1/adapters/{name}/approve", json=body)
        return answer.status_code, answer.json()

    status, silent = await approve(reason="looks fine")
    assert (status, silent["field"]) == (409, "without_evaluation")
    assert "has no evaluation" in silent["detail"]
    status, unexplained = await approve(without_evaluation=True, reason=" ")
    assert (status, unexplained["field"]) == (422, "reason")
    status, forbidden = await approve(**UNJUDGED)
    assert (status, forbidden["field"]) == (409, "without_evaluation")
    assert "allow_approval_without_evaluation" in forbidden["detail"]
    await permit_unjudged(registry, domain)
    assert (await approve(reason="looks fine"))[1]["field"] == "without_evaluation", "it stays express"
    status, found = await approve(**UNJUDGED)
    assert (status, found["status"], found["active"]) == (200, "approved", True)
    entries = (await registry.client.get(f"/v1/adapters/{name}/audit")).json()["entries"]
    assert (entries[1]["action"], entries[1]["reason"]) == ("approved", UNJUDGED["reason"])
    after = entries[1]["after"]
    assert after.pop("policy")["allow_approval_without_evaluation"] is True
    assert after == {"status": "approved", "active": False, "without_evaluation": True}
    (event,) = await eventually(lambda: upstream.published(v1.Approved, domain=domain))
    assert (event.without_evaluation, event.reason, event.score) == (True, UNJUDGED["reason"], None)


async def test_one_s_own_work_is_not_approved_where_the_policy_forbids_it(
    registry: RunningService, mint: Mint, peft: Path, domain: str
) -> None:
    await permit_unjudged(registry, domain, forbid_own_approval=True)
    name = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]
    own = await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED)
    assert (own.status_code, own.json()["field"]) == (409, "status")
    other = {"Authorization": f"Bearer {mint(['adapters:approve'], [domain], subject='ben')}"}
    answer = await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED, headers=other)
    assert (answer.status_code, answer.json()["decided_by"]) == (200, "ben")


async def test_approvals_at_once_leave_one_version_active(registry: RunningService, peft: Path, domain: str) -> None:

    names = [(await upload(registry.client, peft, domain=domain)).json()["adapter_id"] for _ in range(4)]
    await permit_unjudged(registry, domain)
    answers = await asyncio.gather(
        *(registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED) for name in names)
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    found = (await registry.client.get("/v1/adapters", params={"domain": domain, "active": "true"})).json()["adapters"]
    assert [one["adapter_id"] for one in found] == [names[-1]]


@pytest.mark.requirement("LA-5.1")
async def test_a_policy_decides_on_metrics_and_on_preferred_answers_too(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    policy = {"minimum_metrics": {"pass_at_1": 0.8}, "minimum_win_rate": 0.45}
    stored = await registry.client.put(f"/v1/policies/{domain}", json=policy)
    assert stored.status_code == 200, stored.text
    assert {name: stored.json()[name] for name in policy} == policy
    first, unmeasured, rejected = [(await upload(registry.client, peft, domain=domain)).json() for _ in range(3)]
    good = v1.Metric(name="pass_at_1", value=0.95, ci_low=0.85, ci_high=1.0, samples=40)
    active = first["adapter_id"]
    rate = {"compared_with": active, "evaluation_id": "ev-old", "samples": 40, "wins": 5, "losses": 15, "ties": 20}
    lost = v1.Preference(**rate, win_rate=0.375, ci_low=0.27, ci_high=0.48, consistency=1.0, position_bias=0.0)

    async def status(adapter: dict[str, Any]) -> Any:
        found = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}")).json()
        return found["status"] if found["evaluation"] else None

    await upstream.publish(upstream.scored(first, 96, metrics=(good,)))
    assert await eventually(lambda: status(first)) == "approved"
    await upstream.publish(upstream.scored(unmeasured, 96, against=active))
    await upstream.publish(upstream.scored(rejected, 96, against=active, metrics=(good,), preference=lost))
    assert await eventually(lambda: status(unmeasured)) == "pending_review"
    assert await eventually(lambda: status(rejected)) == "pending_review"
    requested = await eventually(lambda: upstream.published(v1.ReviewRequested, domain=domain))
    reasons = {event.adapter_id: event.reason for event in requested}
    assert "metric pass_at_1 was not measured" in reasons[unmeasured["adapter_id"]]
    assert f"answers preferred to those of {active}: 0.38 [0.27, 0.48]" in reasons[rejected["adapter_id"]]
    wrong = await registry.client.put(f"/v1/policies/{domain}", json={"minimum_metrics": {"pass_at_1": 2}})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "minimum_metrics.pass_at_1")
