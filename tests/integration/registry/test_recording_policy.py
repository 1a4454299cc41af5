"""Which answers of a domain may become data: its policy, and the event that carries it to the fleet."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.registry.conftest import Upstream, eventually

pytestmark = pytest.mark.integration


@pytest.mark.requirement("AM-2.3")
async def test_a_policy_tells_the_fleet_which_answers_may_become_data(
    registry: RunningService, upstream: Upstream, domain: str
) -> None:
    default = (await registry.client.get(f"/v1/policies/{domain}")).json()
    assert (default["record_answers"], default["record_fraction"], default["personal_data"]) == ("none", 0, "mask")
    for body in (
        {"record_answers": "sampled"},
        {"record_answers": "all", "record_fraction": 0.5},
        {"record_answers": "sampled", "record_fraction": 1.5},
    ):
        wrong = await registry.client.put(f"/v1/policies/{domain}", json=body)
        assert (wrong.status_code, wrong.json()["field"]) == (422, "record_fraction")
    sampled = {"record_answers": "sampled", "record_fraction": 0.25, "personal_data": "drop"}
    for body in (sampled, {"record_answers": "rated"}):
        assert (await registry.client.put(f"/v1/policies/{domain}", json=body)).status_code == 200
    changes = await eventually(lambda: _policies(upstream, domain, 2))
    assert [(one.revision, one.record_answers, one.record_fraction, one.personal_data, one.by) for one in changes] == [
        (1, "sampled", 0.25, "drop", "admin"),
        (2, "rated", 0, "mask", "admin"),
    ]
    audit = (await registry.client.get(f"/v1/policies/{domain}/audit")).json()["entries"]
    assert [(one["revision"], one["after"]["record_answers"]) for one in audit] == [(1, "sampled"), (2, "rated")]


async def _policies(upstream: Upstream, domain: str, count: int) -> Any:
    found = await upstream.published(v1.PolicyChanged, domain=domain)
    return found if len(found) == count else None
