"""The loop with its gate on: the default policy, and nobody who lowers a line."""

import pytest

from fleet_events import v1

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1500)]

LEARNT = v1.Hyperparameters(rank=16, max_steps=90, batch_size=8, learning_rate=2e-3, seed=7)
HALF_LEARNT = LEARNT.model_copy(update={"max_steps": 6})


@pytest.mark.requirement("LA-4.3")
@pytest.mark.requirement("LA-5.1")
async def test_an_adapter_that_learnt_its_facts_passes_the_default_gate_and_serves(new_loop) -> None:
    async with new_loop("gate-bay", gate=True) as loop:
        await loop.request(hyperparameters=LEARNT)
        await loop.finished_once(900)
        adapter = await loop.adapter()
        assert adapter["decided_by"] == "automated-pipeline"
        judged = adapter["evaluation"]
        assert (judged["samples"], judged["decided"], judged["submission"]) == (32, 32, 1)
        assert judged["ci_low"] >= 85


@pytest.mark.requirement("LA-5.1")
async def test_an_adapter_that_was_stopped_halfway_does_not_pass(new_loop) -> None:
    async with new_loop("half-bay", gate=True) as loop:
        await loop.request(hyperparameters=HALF_LEARNT)

        async def decided() -> bool:
            return bool(await loop.events(v1.Approved, v1.Rejected, v1.ReviewRequested))

        await loop.until(decided, 900)
        assert await loop.events(v1.Approved) == []
        adapter = await loop.adapter()
        assert not adapter["active"]
