"""The official OpenAI client is satisfied: answers, streams, embeddings and errors, as its users write them."""

from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fleet_events.buckets import RESPONSES
from services.inference.token_bytes import TokenBytes
from tests.integration.inference.conftest import QUESTION, TOKENS, answered

pytestmark = pytest.mark.integration


@pytest.fixture
def client(inference: Any, token_of: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{inference.url}/v1", api_key=token_of("admin"), max_retries=0)


def request_body(model: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0, **fields}


async def test_models_are_listed_and_retrieved(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert {"tiny", "auto"} <= set(listed)
    assert (await client.models.retrieve("tiny")).id == "tiny"


@pytest.mark.requirement("LA-1.4")
async def test_models_are_compared_in_a_stream_whose_chunks_name_their_answer_and_a_preference_names_the_whole(
    client: openai.AsyncOpenAI, inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=59)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    models = [adapter.family, "tiny"]
    texts, named, comparisons, usage = ["", ""], set(), set(), None
    ends: dict[int, str] = {}
    fields = request_body(models[0], stream=True, stream_options={"include_usage": True})
    async for chunk in await client.chat.completions.create(**fields, extra_body={"compare": models}):
        usage = chunk.usage or usage
        comparisons.add((chunk.model_extra or {})["lorafleet"]["comparison_id"])
        for choice in chunk.choices:
            own = choice.model_extra or {}
            named.add((choice.index, own["model"], own["lorafleet"]["adapter_id"], own["generation_id"]))
            texts[choice.index] += choice.delta.content or ""
            ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert texts == [expected(made), expected()]
    assert ends == {0: "length", 1: "length"}
    assert [one[:3] for one in sorted(named)] == [(0, models[0], adapter.adapter_id), (1, "tiny", None)]
    assert usage is not None
    assert usage.completion_tokens == 2 * TOKENS
    (comparison,) = comparisons
    preferred = await inference.client.post("/v1/feedback", json={"comparison_id": comparison, "preferred": 0})
    ids = [one[3] for one in sorted(named)]
    assert (preferred.status_code, preferred.json()["generation_id"]) == (202, ids[0])
    assert preferred.json()["preferred_over"] == ids[1:]
    with pytest.raises(openai.NotFoundError):
        fields = request_body("tiny", stream=True)
        await client.chat.completions.create(**fields, extra_body={"compare": ["tiny", "unknown-lora"]})


@pytest.mark.requirement("AM-3.1")
async def test_an_adapter_answers_whole_and_in_a_stream_and_says_who_it_is(
    client: openai.AsyncOpenAI, inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=51)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    whole = await client.chat.completions.create(**request_body(adapter.family))
    assert whole.choices[0].message.content == expected(made)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == TOKENS
    assert (whole.model_extra or {})["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256

    text, usage = "", None
    fields = request_body(adapter.family, stream=True, stream_options={"include_usage": True})
    async for chunk in await client.chat.completions.create(**fields):
        usage = chunk.usage or usage
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == expected(made)
    assert usage == whole.usage

    fallback = await client.chat.completions.create(**request_body(adapter.family), extra_body={"fallback": "tiny"})
    assert fallback.choices[0].message.content == expected(made)


async def test_log_probabilities_of_tokens_come_with_a_chat_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**request_body("tiny", logprobs=True))
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == TOKENS
    assert all(one.logprob <= 0 for one in logprobs.content)


async def test_a_response_is_a_chats_answer_kept_on_the_bus_for_its_caller_alone(
    client: openai.AsyncOpenAI,
    inference: Any,
    registry: Any,
    make_adapter: Any,
    expected: Any,
    domain: str,
    token_of: Any,
    jetstream: Any,
) -> None:
    made = make_adapter(seed=52)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    fields: Any = {"model": adapter.family, "input": QUESTION, "max_output_tokens": TOKENS, "temperature": 0}
    whole = await client.responses.create(**fields)
    assert (whole.output_text, whole.status) == (expected(made), "incomplete")
    assert (whole.model_extra or {})["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256
    assert whole.usage is not None
    assert whole.usage.output_tokens == TOKENS
    events = [event async for event in await client.responses.create(**fields, stream=True)]
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == expected(made)

    bucket = await jetstream.key_value(RESPONSES.name)
    value = (await bucket.get(whole.id)).value
    assert value is not None
    assert QUESTION.encode() not in value
    assert (await client.responses.retrieve(whole.id)).output_text == whole.output_text
    stranger = openai.AsyncOpenAI(base_url=f"{inference.url}/v1", api_key=token_of("evaluator"), max_retries=0)
    with pytest.raises(openai.NotFoundError):
        await stranger.responses.retrieve(whole.id)
    with pytest.raises(openai.NotFoundError):
        await stranger.responses.delete(whole.id)
    with pytest.raises(openai.BadRequestError):
        await stranger.responses.create(**fields, previous_response_id=whole.id)

    again = await client.responses.create(**fields, previous_response_id=whole.id)
    turns: list[Any] = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": whole.output_text},
        {"role": "user", "content": QUESTION},
    ]
    chat = await client.chat.completions.create(**request_body(adapter.family) | {"messages": turns})
    assert again.output_text == chat.choices[0].message.content
    await client.responses.delete(whole.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(whole.id)
    assert (await client.responses.retrieve(again.id)).id == again.id


async def test_texts_are_completed_and_embedded(client: openai.AsyncOpenAI) -> None:
    completed = await client.completions.create(model="tiny", prompt="The tide", max_tokens=4, temperature=0)
    assert completed.choices[0].text
    made = await client.embeddings.create(model="tiny", input=["the tide", "the harbour"])
    vectors = np.array([one.embedding for one in made.data])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_answers_are_drawn_with_penalties_as_transformers_draws_them(
    client: openai.AsyncOpenAI, tiny_model: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tiny_model)("the tide the tide")["input_ids"]
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, repetition_penalty=1.8, pad_token_id=2
        )[0, len(ids) :]
    wanted = AutoTokenizer.from_pretrained(tiny_model).decode(out, skip_special_tokens=True)
    completed = await client.completions.create(
        model="tiny",
        prompt=[ids, ids],
        max_tokens=TOKENS,
        temperature=0,
        extra_body={"repetition_penalty": 1.8},
    )
    assert [(one.index, one.text) for one in completed.choices] == [(0, wanted), (1, wanted)]
    [choice] = (
        await client.completions.create(
            model="tiny", prompt="the", max_tokens=3, temperature=0, logit_bias={str(ids[-1]): 100}
        )
    ).choices
    assert choice.text == " tide" * 3


async def test_an_answer_has_the_form_that_is_requested_in_a_stream_and_whole(client: openai.AsyncOpenAI) -> None:
    texts = ["the tide", "the harbour"]
    form = {"structured_outputs": {"choice": texts}}
    whole = await client.chat.completions.create(**request_body("tiny"), extra_body=form)
    assert whole.choices[0].message.content in texts
    assert whole.choices[0].finish_reason == "stop"
    streamed = ""
    async for chunk in await client.chat.completions.create(**request_body("tiny", stream=True), extra_body=form):
        streamed += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert streamed == whole.choices[0].message.content


async def test_candidates_of_a_prompt_and_of_an_answer_are_the_models_own(
    client: openai.AsyncOpenAI, tiny_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = tokenizer("What does the tide do")["input_ids"]
    with torch.inference_mode():
        best = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1).topk(2)
    completed = await client.completions.create(
        model="tiny", prompt=ids, max_tokens=1, temperature=0, logprobs=2, echo=True
    )
    logprobs = completed.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.top_logprobs is not None
    for at, (values, tokens) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), start=1):
        names = [TokenBytes(tokenizer).shown(one) for one in tokens]
        found = logprobs.top_logprobs[at]
        assert [found[name] for name in names] == pytest.approx(values, abs=1e-3)
    sampled = await client.chat.completions.create(
        **request_body("tiny", n=2, seed=5, temperature=1, logprobs=True, top_logprobs=2)
    )
    first, second = sampled.choices
    assert first.message.content != second.message.content
    again = await client.chat.completions.create(**request_body("tiny", n=2, seed=5, temperature=1))
    assert [one.message.content for one in again.choices] == [first.message.content, second.message.content]


async def test_the_ids_of_a_text_are_embedded_as_the_text_is(client: openai.AsyncOpenAI, tiny_model: Path) -> None:
    ids = AutoTokenizer.from_pretrained(tiny_model)("the tide is high")["input_ids"]
    of_text = await client.embeddings.create(model="tiny", input="the tide is high")
    of_ids = await client.embeddings.create(model="tiny", input=[ids])
    np.testing.assert_allclose(of_ids.data[0].embedding, of_text.data[0].embedding, atol=1e-6)
    assert of_ids.usage.total_tokens == of_text.usage.total_tokens == len(ids)


async def test_errors_are_the_clients_own_kinds(client: openai.AsyncOpenAI, inference: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(**request_body("ghost"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(**request_body("a+b+c+d"))
    assert bad.value.code == "invalid_adapter_set"
    with pytest.raises(openai.UnprocessableEntityError):
        await client.chat.completions.create(**request_body("tiny", temperature=9))
    stranger = openai.AsyncOpenAI(base_url=f"{inference.url}/v1", api_key="nobody", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        await stranger.chat.completions.create(**request_body("tiny"))
