"""Which weights answer: through HTTP, on real NATS and S3, held against what PEFT answers with the same adapter."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from fleet_events import v1
from tests.integration.inference.conftest import QUESTION, TOKENS, answered, chat, eventually, text_of


async def test_the_base_model_answers_as_transformers_does(inference: Any, expected: Any) -> None:
    body = await answered(inference.client, "tiny")
    assert text_of(body) == expected()
    assert body["lorafleet"]["adapter_id"] is None
    assert body["lorafleet"]["artifact_sha256"] is None
    assert body["usage"]["completion_tokens"] == TOKENS
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.requirement("AM-3.1")
@pytest.mark.requirement("AM-4.1")
async def test_an_activated_adapter_is_loaded_before_it_is_asked_and_answers_as_peft_does(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=1)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)

    async def preloaded() -> Any:
        states = (await inference.client.get("/admin/adapters")).json()["adapters"]
        return states.get(adapter.adapter_id, {}).get("state") == "loaded"

    await eventually(preloaded)
    for model in (adapter.adapter_id, adapter.family):
        body = await answered(inference.client, model)
        assert text_of(body) == expected(made) != expected()
        assert body["lorafleet"]["adapter_id"] == adapter.adapter_id
        assert body["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256

    async def completed() -> Any:
        events = await registry.published(v1.GenerationCompleted)
        return [one for one in events if one.generation_id == body["id"]]

    [event] = await eventually(completed)
    assert (event.adapter_id, event.requested_model) == (adapter.adapter_id, adapter.family)
    assert event.artifact_sha256 == adapter.artifact.blob.sha256
    assert event.base_model_revision == body["lorafleet"]["base_model_revision"] == adapter.base_model.revision
    assert (event.completion_tokens, event.caller) == (TOKENS, "admin")
    [loaded] = [one for one in await registry.published(v1.AdapterLoaded) if one.domain == domain]
    # Seven projections in each of two layers.
    assert loaded.modules_bound == 14
    assert loaded.max_delta > 0
    assert loaded.replica == "replica-of-the-test"


async def test_a_candidate_is_served_to_the_evaluator_and_does_not_exist_for_others(
    inference: Any, evaluator: httpx.AsyncClient, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=2)
    adapter = await registry.describe(made, domain)
    await registry.register(adapter)
    assert text_of(await answered(evaluator, adapter.adapter_id)) == expected(made)
    for model in (adapter.adapter_id, adapter.family):
        refused = await chat(inference.client, model)
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "model_not_found"
    listed = [one["id"] for one in (await inference.client.get("/v1/models")).json()["data"]]
    assert adapter.adapter_id not in listed
    assert adapter.adapter_id in [one["id"] for one in (await evaluator.get("/v1/models")).json()["data"]]


@pytest.mark.requirement("AM-3.2")
async def test_a_family_switches_to_its_new_version_and_the_old_one_takes_no_new_requests(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    old, new = make_adapter(seed=3), make_adapter(seed=4)
    v1_, v2 = await registry.describe(old, domain), await registry.describe(new, domain, "1.1.0")
    await registry.activate(v1_)
    assert text_of(await answered(inference.client, v1_.family)) == expected(old)
    await registry.activate(v2)
    await registry.deactivate(v1_)

    async def switched() -> Any:
        return (await chat(inference.client, v1_.family)).json()["lorafleet"]["adapter_id"] == v2.adapter_id

    await eventually(switched)
    assert text_of(await answered(inference.client, v1_.family)) == expected(new)
    refused = await chat(inference.client, v1_.adapter_id)
    assert refused.status_code == 409
    assert refused.json()["error"]["active_version"] == v2.adapter_id


@pytest.mark.requirement("AM-3.2")
async def test_an_answer_that_is_running_when_its_adapter_is_deactivated_ends_with_its_weights(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=5)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    tokens = 450
    content, meanwhile = "", None
    body = {
        "model": adapter.adapter_id,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": tokens,
        "stream": True,
    }
    async with inference.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        deactivated = False
        async for chunk in _chunks(stream):
            content += chunk["choices"][0]["delta"].get("content", "")
            if not deactivated:
                deactivated = True
                await registry.deactivate(adapter)

                async def gone() -> Any:
                    return (await chat(inference.client, adapter.adapter_id)).status_code == 409

                await eventually(gone)
                states = (await inference.client.get("/admin/adapters")).json()["adapters"]
                meanwhile = states[adapter.adapter_id]["state"]
    assert meanwhile == "draining", "the answer was not running any more when new requests were refused"
    assert content == expected(made, tokens=tokens)


@pytest.mark.requirement("AM-3.1", "AM-3.2")
async def test_a_family_that_switches_again_and_again_under_load_never_fails_or_mixes_an_answer(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = [make_adapter(seed=seed) for seed in (51, 52)]
    versions = [await registry.describe(made[n % 2], domain, f"{n + 1}.0.0") for n in range(13)]
    texts = {one.adapter_id: expected(made[n % 2]) for n, one in enumerate(versions)}
    await registry.activate(versions[0])
    await answered(inference.client, versions[0].family)
    answers: list[httpx.Response] = []
    switching = True

    async def ask() -> None:
        while switching:
            answers.append(await chat(inference.client, versions[0].family))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for adapter in versions[1:]:
        seen = len(answers)
        await registry.activate(adapter)
        await eventually(lambda seen=seen: _true(len(answers) >= seen + 6))
    switching = False
    await asyncio.gather(*asking)
    assert [one.text for one in answers if one.status_code != 200] == []
    bodies = [one.json() for one in answers]
    assert all(text_of(body) == texts[body["lorafleet"]["adapter_id"]] for body in bodies)
    assert len({body["lorafleet"]["adapter_id"] for body in bodies}) >= 10


async def _true(value: bool) -> bool:
    return value


async def test_a_stream_says_the_same_as_a_whole_answer(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await registry.describe(make_adapter(seed=6), domain)
    await registry.activate(adapter)
    whole = await answered(inference.client, adapter.adapter_id, max_tokens=40)
    body = {
        "model": adapter.adapter_id,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 40,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with inference.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in stream.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    content = "".join(one["choices"][0]["delta"].get("content", "") for one in chunks if one["choices"])
    assert content == text_of(whole)
    reasons = [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) == {None}
    assert chunks[-1]["usage"] == whole["usage"]
    assert {one["lorafleet"]["adapter_id"] for one in chunks} == {adapter.adapter_id}


@pytest.mark.requirement("LI-8.1", "LI-8.6")
async def test_a_weighted_set_answers_as_pefts_weighted_adapter_and_the_response_names_all_of_it(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, tiny_model: Any, domain: str
) -> None:
    made = [make_adapter(seed=seed) for seed in (21, 22)]
    adapters = [await registry.describe(one, f"{domain}{place}") for place, one in enumerate(made)]
    for adapter in adapters:
        await registry.activate(adapter)
        await answered(inference.client, adapter.adapter_id)
    model = f"{adapters[0].family}@1.0.0:0.4+{adapters[1].family}:0.7"
    body = await answered(inference.client, model)
    mixed = mixed_by_peft(tiny_model, [(made[0], 0.4), (made[1], 0.7)])
    assert text_of(body) == mixed not in {expected(made[0]), expected(made[1]), expected()}
    parts = [(one.adapter_id, one.artifact.blob.sha256, w) for one, w in zip(adapters, (0.4, 0.7), strict=True)]
    assert [tuple(part.values()) for part in body["lorafleet"]["mix"]] == parts
    assert body["lorafleet"]["adapter_id"] == adapters[1].adapter_id

    async def completed() -> Any:
        return [one for one in await registry.published(v1.GenerationCompleted) if one.generation_id == body["id"]]

    [event] = await eventually(completed)
    assert [(one.adapter_id, one.artifact_sha256, one.weight) for one in event.mix] == parts
    refused = await chat(inference.client, f"{adapters[0].family}:0.5+{adapters[1].family}:many")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_adapter_set")


def mixed_by_peft(tiny_model: Any, parts: list[tuple[Any, float]]) -> str:
    """PEFT's greedy answer with these adapters' deltas added up by weight."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, parts[0][0].peft, adapter_name="0")
    for number, (made, _) in enumerate(parts[1:], 1):
        model.load_adapter(made.peft, str(number))
    names = [str(number) for number in range(len(parts))]
    model.add_weighted_adapter(names, [weight for _, weight in parts], "mix", combination_type="cat")
    model.set_adapter("mix")
    chat_ = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.apply_chat_template(chat_, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        out = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=2)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.requirement("AS-1.1")
async def test_two_base_models_answer_side_by_side_each_shared_by_its_own_adapters(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, second_model: Any, domain: str
) -> None:
    first, second = make_adapter(seed=71), make_adapter(seed=72, base=second_model)
    adapters = [await registry.describe(made, f"{domain}{place}") for place, made in enumerate((first, second))]
    for adapter in adapters:
        await registry.activate(adapter)
        await answered(inference.client, adapter.family)
    names = ["tiny", "second", *(one.family for one in adapters)]
    bodies = await asyncio.gather(*(answered(inference.client, name) for name in names))
    assert text_of(bodies[0]) == expected() != text_of(bodies[1])
    assert [text_of(bodies[2]), text_of(bodies[3])] == [expected(first), expected(second)]
    assert [body["lorafleet"]["base_model"] for body in bodies] == ["tiny", "second", "tiny", "second"]
    listed = {one["id"]: one for one in (await inference.client.get("/v1/models")).json()["data"]}
    assert [listed[name].get("parent") for name in names] == [None, None, "tiny", "second"]
    mixed = await chat(inference.client, f"{names[2]}:0.5+{names[3]}:0.5")
    assert (mixed.status_code, mixed.json()["error"]["code"]) == (400, "invalid_adapter_set")
    assert "different base models" in mixed.json()["error"]["message"]


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1])
async def test_killed_while_loading_it_serves_the_same_after_its_restart(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str, delay: float
) -> None:
    made = make_adapter(seed=31)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    chatting = asyncio.create_task(chat(inference.client, adapter.adapter_id))
    await asyncio.sleep(delay)
    await inference.crash()
    await asyncio.gather(chatting, return_exceptions=True)
    await inference.start()
    # Ready means that it knows every adapter again, so nothing is waited for here.
    answer = await chat(inference.client, adapter.adapter_id)
    assert answer.status_code == 200, answer.text
    assert text_of(answer.json()) == expected(made)


async def _chunks(stream: httpx.Response) -> Any:
    async for line in stream.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))
