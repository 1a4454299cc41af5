"""Which adapters are in slots at once: through HTTP, on real NATS and S3."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_core import LoRAFormat, LoRAWeights
from tests.integration.inference.conftest import answered, chat, text_of


async def test_requests_of_more_adapters_than_slots_at_once_each_get_their_own_weights(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = [make_adapter(seed=seed) for seed in (11, 12, 13)]
    adapters = [await registry.describe(one, f"{domain}{place}") for place, one in enumerate(made)]
    for adapter in adapters:
        await registry.activate(adapter)
    for adapter in adapters:
        await answered(inference.client, adapter.adapter_id)
    # Sixteen requests on two slots and eight rows, base rows among them.
    wanted = [(adapters[n % 4].adapter_id, made[n % 4]) if n % 4 < 3 else ("tiny", None) for n in range(16)]
    got = await asyncio.gather(*(answered(inference.client, model) for model, _ in wanted))
    assert [text_of(body) for body in got] == [expected(one) for _, one in wanted]
    assert [body["lorafleet"]["adapter_id"] or "tiny" for body in got] == [model for model, _ in wanted]


@pytest.mark.requirement("AS-4.1")
async def test_adapters_of_small_ranks_share_the_memory_of_slots_and_leave_for_a_large_one(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    """Two slots of rank 4: eight ranks."""
    made = [make_adapter(seed=seed, rank=rank) for seed, rank in ((31, 2), (32, 1), (33, 2), (34, 1), (35, 4))]
    adapters = [await registry.describe(one, f"{domain}{place}") for place, one in enumerate(made)]

    async def loaded() -> list[int]:
        states = (await inference.client.get("/admin/adapters")).json()["adapters"]
        return [n for n, one in enumerate(adapters) if states.get(one.adapter_id, {}).get("state") == "loaded"]

    await inference.client.post("/admin/evict", json={})
    for one in adapters[:4]:
        await registry.activate(one)
        await answered(inference.client, one.adapter_id)
    assert await loaded() == [0, 1, 2, 3]
    fraction = 'lorafleet_inference_slot_memory_fraction{base_model="tiny"} 0.75'
    assert fraction in (await inference.client.get("/metrics")).text
    got = await asyncio.gather(*(answered(inference.client, one.adapter_id) for one in adapters[:4]))
    assert [text_of(body) for body in got] == [expected(one) for one in made[:4]]
    for one in adapters[1:4]:
        await answered(inference.client, one.adapter_id)  # which leaves the first as the least recently used
    await registry.activate(adapters[4])
    assert text_of(await answered(inference.client, adapters[4].adapter_id)) == expected(made[4])
    assert await loaded() == [1, 2, 3, 4]


async def test_an_adapter_with_a_module_of_a_larger_rank_than_slots_have_is_refused_before_it_takes_one(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    """Its registered rank is the one that most of its modules have."""
    made = make_adapter(seed=36)
    card = LoRAFormat.load(made.artifact)
    name = next(iter(card.weights))
    larger = LoRAWeights(np.repeat(card.weights[name].a, 2, axis=0), np.repeat(card.weights[name].b, 2, axis=1))
    LoRAFormat.save(replace(card, weights={**card.weights, name: larger}), made.artifact)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    response = await chat(inference.client, adapter.adapter_id)
    assert response.json()["error"]["code"] == "artifact_invalid"
    assert "rank is 8, expected at most 4, the slots' size" in response.json()["error"]["message"]
