"""Versions that learned from erased records: marked, and rejected at once or when another version replaces them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.registry.conftest import UNJUDGED, Get, Upstream, eventually, permit_unjudged
from tests.integration.registry.uploads import upload

pytestmark = pytest.mark.integration


def forgotten(domain: str, *adapters: dict[str, Any], **changes: Any) -> v1.SubjectForgotten:
    return v1.SubjectForgotten(
        erasure_id=f"er-{domain}{len(adapters)}",
        domain=domain,
        subject_digest="f" * 64,
        adapter_ids=tuple(one["adapter_id"] for one in adapters),
        part=1,
        parts=1,
        by="anna",
        **changes,
    )


@pytest.mark.requirement("LA-1.7")
async def test_a_version_that_learned_from_erased_records_serves_until_one_without_them_does_and_is_rejected_then(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str, adapters: Get
) -> None:
    await permit_unjudged(registry, domain)
    first, second, third = [
        (await upload(registry.client, peft, domain=domain, version=f"1.{number}.0")).json() for number in range(3)
    ]

    async def approve(one: dict[str, Any]) -> None:
        answer = await registry.client.post(f"/v1/adapters/{one['adapter_id']}/approve", json=UNJUDGED)
        assert answer.json()["active"], answer.text

    async def states() -> list[tuple[str, bool]]:
        return [
            (one["status"], one["active"]) for one in sorted(await adapters(domain), key=lambda one: one["version"])
        ]

    async def marked(one: dict[str, Any]) -> Any:
        return (await registry.client.get(f"/v1/adapters/{one['adapter_id']}")).json()["learned_from_erased"]

    await approve(first)
    event = forgotten(domain, first, second, retire_when_replaced=True)
    await upstream.publish(event)
    await eventually(lambda: marked(second))
    await approve(second)  # it learned from them as well, and replaces nothing
    assert await states() == [("approved", False), ("approved", True), ("pending_review", False)]
    await approve(third)
    assert await states() == [("rejected", False), ("rejected", False), ("approved", True)]
    entries = (await registry.client.get(f"/v1/adapters/{second['adapter_id']}/audit")).json()["entries"]
    assert entries[-1]["reason"] == (
        f"erasure {event.erasure_id}: it learned from records that are erased, and {third['adapter_id']} replaces it"
    )

    async def published() -> bool:
        found = await upstream.published(v1.Rejected, domain=domain)
        return len(found) == 2

    await eventually(published)


async def test_a_version_that_was_replaced_before_its_erasure_is_known_is_rejected_with_it(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str, adapters: Get
) -> None:
    await permit_unjudged(registry, domain)
    first, second = [
        (await upload(registry.client, peft, domain=domain, version=f"1.{number}.0")).json() for number in range(2)
    ]
    for one in (first, second):
        await registry.client.post(f"/v1/adapters/{one['adapter_id']}/approve", json=UNJUDGED)
    await upstream.publish(forgotten(domain, first, retire_when_replaced=True))

    async def rejected() -> bool:
        return {one["version"]: one["status"] for one in await adapters(domain)} == {
            "1.0.0": "rejected",
            "1.1.0": "approved",
        }

    await eventually(rejected)
