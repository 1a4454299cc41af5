"""A base model whose weights are rounded still proves the effect that the trainer recorded in float32."""

from typing import Any

import pytest

from tests.integration.inference.conftest import answered, chat, eventually, text_of


@pytest.mark.requirement("AS-7.1")
async def test_with_8_bit_weights_an_adapter_is_compared_with_what_its_trainer_recorded_and_another_is_refused(
    run_service: Any, settings_of_inference: Any, registry: Any, make_adapter: Any, peft_probe: Any, domain: str
) -> None:
    made, other = make_adapter(seed=81), make_adapter(seed=82)
    async with run_service("inference", **settings_of_inference, LORAFLEET_WEIGHTS="int8") as inference:
        adapter = await registry.describe(made, domain, probe=peft_probe(made))
        await registry.activate(adapter)
        body = await answered(inference.client, adapter.adapter_id)
        assert text_of(body) != text_of(await answered(inference.client, "tiny"))
        states = (await inference.client.get("/admin/adapters")).json()["adapters"]
        assert states[adapter.adapter_id]["proof"]["compared"] is True
        wrong = await registry.describe(other, f"{domain}x", probe=peft_probe(made))
        await registry.activate(wrong)

        async def refused() -> Any:
            answer = await chat(inference.client, wrong.adapter_id)
            return answer if answer.status_code == 422 else None

        assert (await eventually(refused)).json()["error"]["code"] == "effect_differs"
