"""A job validates, keeps its best checkpoint, and a later job trains its adapter further."""

from __future__ import annotations

import json

import asyncpg
import pytest

from fleet_events import v1
from tests.integration.trainer.conftest import SHORT, Bench, eventually, pairs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RESTLESS = {
    **SHORT,
    "learningRate": 0.1,
    "scheduler": "constant",
    "epochs": 5,
    "checkpointSteps": 2,
    "keepCheckpoints": 1,
    "validationPart": 0.25,
    "validationSteps": 2,
}
"""A rate so high that the validation loss does not fall to the end."""


async def stored_steps(bench: Bench, job_id: str) -> tuple[list[int], dict[int, float]]:
    """Steps of the checkpoints that are kept, and the validation loss by step."""
    connection = await asyncpg.connect(bench.trainer.env["LORAFLEET_DATABASE_URL"])
    try:
        kept = await connection.fetch("select step, uri from checkpoints where job_id = $1 order by step", job_id)
        measured = await connection.fetch("select step, loss from validations where job_id = $1", job_id)
    finally:
        await connection.close()
    return [row["step"] for row in kept], {row["step"]: row["loss"] for row in measured}


@pytest.mark.heavy
@pytest.mark.requirement("TP-3.2")
@pytest.mark.requirement("TP-1.2")
async def test_the_best_checkpoint_outlives_newer_ones_and_the_adapter_is_trained_further_by_its_id(
    bench: Bench,
) -> None:
    await bench.record(pairs(bench.domain))
    first = await bench.submit(hyperparameters=RESTLESS)
    done = await bench.until(first, "succeeded")
    kept, losses = await stored_steps(bench, first)
    best = min(losses, key=lambda step: (losses[step], step))
    assert best < max(losses), "otherwise this proves nothing"
    assert kept == [best, max(losses)]
    made = await bench.completed(first)

    adapter_id = f"{bench.domain}-lora-v1.0.0"
    await bench.upstream.publish(
        v1.AdapterRegistered(
            adapter=v1.Adapter(
                adapter_id=adapter_id,
                family=f"{bench.domain}-lora",
                domain=bench.domain,
                method="lora",
                version="1.0.0",
                base_model=made.base_model,
                artifact=made.artifact,
            ),
            revision=1,
            job_id=first,
        )
    )
    further = {"maxSteps": 2, "batchSize": 4, "learningRate": 0.001}

    async def submitted(**changes: object) -> tuple[int, dict[str, object]]:
        answer = await bench.trainer.client.post("/v1/jobs", json=bench.request(hyperparameters=further) | changes)
        return answer.status_code, answer.json()

    async def known() -> dict[str, object] | None:
        status, answer = await submitted(continueFrom=adapter_id)
        return answer if status == 202 else None

    accepted = await eventually(known, 30)
    second = await bench.until(str(accepted["job_id"]), "succeeded")
    event = await bench.completed(second["job_id"])
    assert event.continued_from == second["continued_from"] == adapter_id
    used = json.loads(event.configuration)
    assert (used["rank"], used["continue_from"]) == (SHORT["rank"], made.checkpoint.sha256)
    assert used["alpha"] == done["configuration"]["alpha"]
    began, before = (await bench.metrics(second["job_id"]))[0]["loss"], (await bench.metrics(first))[0]["loss"]
    assert began < before, "it begins where the other one ended"

    status, answer = await submitted(
        continueFrom=adapter_id, method="dora", hyperparameters={"rank": 8, "targetModules": ["q_proj"]}
    )
    assert status == 422
    faults = {one["field"]: one["expected"] for one in answer["faults"]}  # type: ignore[attr-defined]
    assert set(faults) == {"method", "hyperparameters.rank", "hyperparameters.target_modules"}
    assert all(adapter_id in expected for expected in faults.values())
    status, answer = await submitted(continueFrom=first, domain="elsewhere")
    assert (status, answer["field"]) == (422, "continue_from")
