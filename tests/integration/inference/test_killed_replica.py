"""What a replica that is killed takes along: nothing of a response that has ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet_events import v1
from tests.integration.inference.conftest import answered, chat
from tests.integration.inference.test_recording import ALL, permit, recorded, serving

pytestmark = pytest.mark.integration


@pytest.mark.requirement("AM-2.3")
@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.heavy)])
async def test_a_replica_that_is_killed_behind_a_response_takes_nothing_of_it_along(
    inference: Any, registry: Any, make_adapter: Any, domain: str, killed: bool
) -> None:
    adapter = await serving(registry, make_adapter, domain, 60)
    await permit(registry, domain, ALL)
    await answered(inference.client, adapter.family)
    ids = []
    for stream in (False, True):
        response = await chat(inference.client, adapter.family, stream=stream)
        if killed:
            await inference.kill()
            await inference.wait_ready()
        first = response.text.split("\n\n")[0].removeprefix("data: ") if stream else response.text
        ids.append(json.loads(first)["id"])
        completed = [one.generation_id for one in await registry.published(v1.GenerationCompleted)]
        assert completed.count(ids[-1]) == 1
        assert len(await recorded(registry, ids[-1])) == 1
        if killed:
            await answered(inference.client, adapter.family)
