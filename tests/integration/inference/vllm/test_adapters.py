"""Adapters on vLLM servers: which weights answer, where they lie, and what happens when servers come and go."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_events import v1
from tests.integration.inference.conftest import TOKENS, answered, chat, eventually, text_of
from tests.integration.inference.vllm.conftest import KEY, held, holders, name_of


@pytest.mark.requirement("AS-1.1")
async def test_an_adapter_answers_with_its_own_weights_from_one_of_the_servers(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=1)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    home = await held(vllm, adapter)
    body = await answered(inference.client, adapter.family)
    assert text_of(body) == expected(made) != expected()
    assert body["lorafleet"]["adapter_id"] == adapter.adapter_id
    assert body["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256
    assert body["usage"]["completion_tokens"] == TOKENS
    assert home.requested[-1] == name_of(adapter)
    assert text_of(await answered(inference.client, "tiny")) == expected()
    [loaded] = [one for one in await registry.published(v1.AdapterLoaded) if one.domain == domain]
    assert loaded.modules_bound == 14
    assert loaded.max_delta > 0


async def test_folders_of_an_earlier_life_are_gone(inference: Any, adapter_folder: Path) -> None:
    assert not (adapter_folder / "old-lora-v1.0.0@0123456789ab").exists()


async def test_what_the_trainer_recorded_is_met_or_the_adapter_does_not_serve(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, peft_probe: Any, domain: str
) -> None:
    made, other = make_adapter(seed=2), make_adapter(seed=3)
    right = await registry.describe(made, domain, probe=peft_probe(made))
    wrong = await registry.describe(other, domain, "1.1.0", probe=peft_probe(made))
    await registry.activate(right)
    assert text_of(await answered(inference.client, right.adapter_id)) == expected(made)
    await registry.activate(wrong)

    async def refused() -> Any:
        response = await chat(inference.client, wrong.adapter_id)
        return response if response.status_code == 422 else None

    error = (await eventually(refused)).json()["error"]
    assert error["code"] == "effect_differs"
    assert holders(vllm, wrong) == []


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"rank": 16}, "artifact_invalid", "LoRA rank 16 is greater than max_lora_rank 8"),
        ({"scale": 1e-7}, "no_effect", ""),
    ],
)
async def test_an_adapter_that_vllm_refuses_or_that_changes_nothing_is_an_error_and_stays_nowhere(
    inference: Any,
    vllm: Any,
    registry: Any,
    make_adapter: Any,
    adapter_folder: Path,
    domain: str,
    changes: Any,
    code: str,
    says: str,
) -> None:
    adapter = await registry.describe(make_adapter(seed=4, **changes), domain)
    await registry.activate(adapter)

    async def refused() -> Any:
        response = await chat(inference.client, adapter.adapter_id)
        return response if response.status_code == 422 else None

    error = (await eventually(refused)).json()["error"]
    assert error["code"] == code
    assert says in error["message"]
    assert holders(vllm, adapter) == []
    assert not (adapter_folder / name_of(adapter)).exists()


async def test_a_restarted_server_gets_its_adapters_back_and_answers_with_them(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=5)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    home = await held(vllm, adapter)
    home.restart()
    # At once: the request itself finds out that its adapter is gone, or the loop does.
    assert text_of(await answered(inference.client, adapter.adapter_id)) == expected(made)

    async def back() -> bool:
        return holders(vllm, adapter) == [home]

    await eventually(back)
    assert text_of(await answered(inference.client, adapter.adapter_id)) == expected(made)


async def test_adapters_of_a_server_that_is_down_are_answered_by_the_other_and_return_with_it(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=6)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    home = await held(vllm, adapter)
    [other] = [server for server in vllm if server is not home]
    home.stop()
    response = await chat(inference.client, adapter.adapter_id)
    assert response.status_code == 200, response.text
    assert text_of(response.json()) == expected(made)
    assert holders(vllm, adapter) == [other]
    home.start()

    async def back() -> bool:
        return holders(vllm, adapter) == [home]

    await eventually(back)
    assert text_of(await answered(inference.client, adapter.adapter_id)) == expected(made)


async def test_with_every_server_down_a_request_is_told_to_come_back_and_never_gets_the_base_model(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=7)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    for server in vllm:
        server.stop()
    for model in (adapter.adapter_id, "tiny"):
        response = await chat(inference.client, model)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "backend_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    for server in vllm:
        server.start()
    assert text_of(await answered(inference.client, adapter.adapter_id)) == expected(made)


@pytest.mark.requirement("AM-3.2")
async def test_a_new_version_takes_over_and_the_old_one_leaves_its_server(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, adapter_folder: Path, domain: str
) -> None:
    old, new = make_adapter(seed=8), make_adapter(seed=9)
    first, second = await registry.describe(old, domain), await registry.describe(new, domain, "1.1.0")
    await registry.activate(first)
    assert text_of(await answered(inference.client, first.family)) == expected(old)
    await registry.activate(second)

    async def gone() -> bool:
        return not holders(vllm, first) and not (adapter_folder / name_of(first)).exists()

    await eventually(gone)
    assert text_of(await answered(inference.client, first.family)) == expected(new)
    await registry.deactivate(second)

    async def empty() -> bool:
        return not holders(vllm, second)

    await eventually(empty)
    assert (await chat(inference.client, first.family)).status_code == 409


async def test_adapters_that_should_not_be_there_are_unloaded_and_those_of_others_are_left_alone(
    inference: Any, vllm: Any, make_adapter: Any, adapter_folder: Path
) -> None:
    made = make_adapter(seed=10)
    stranger = adapter_folder / "stranger-lora-v1.0.0@aaaaaaaaaaaa"
    stranger.symlink_to(made.peft)
    async with httpx.AsyncClient(base_url=vllm[0].url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for name, folder in ((stranger.name, stranger), ("of-the-operator", made.peft)):
            body = {"lora_name": name, "lora_path": str(folder)}
            assert (await client.post("/v1/load_lora_adapter", json=body)).status_code == 200

    async def cleared() -> bool:
        return stranger.name not in vllm[0].adapters

    await eventually(cleared)
    await asyncio.sleep(1)
    assert "of-the-operator" in vllm[0].adapters
