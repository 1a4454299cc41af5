"""Answers that may become data: what leaves inference, under which policy, and what feedback takes with it."""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import timedelta
from typing import Any

import pytest

from fleet_cli.stack.fleet import Fleet
from fleet_cli.stack.objects import s3_client
from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from fleet_kit.settings import ServiceSettings
from services.inference.recording.consent import Consents
from services.inference.recording.exchange import PendingAnswer
from services.inference.recording.rated import HeldForFeedback
from services.inference.recording.recorder import Recorder
from services.inference.recording.texts import sweep_aged
from tests.conftest import ServiceEnv
from tests.integration.inference.conftest import QUESTION, answered, chat, eventually, text_of

pytestmark = pytest.mark.integration

ALL, RATED, NONE = v1.RecordAnswers.ALL, v1.RecordAnswers.RATED, v1.RecordAnswers.NONE
MASK, DROP = v1.PersonalDataAction.MASK, v1.PersonalDataAction.DROP


async def permit(
    registry: Any,
    domain: str,
    mode: v1.RecordAnswers,
    *,
    revision: int = 1,
    personal_data: v1.PersonalDataAction = MASK,
) -> None:
    await registry.publish(
        v1.PolicyChanged(domain=domain, revision=revision, by="test", record_answers=mode, personal_data=personal_data)
    )


async def recorded(registry: Any, generation_id: str) -> list[v1.GenerationRecorded]:
    return [one for one in await registry.published(v1.GenerationRecorded) if one.generation_id == generation_id]


async def first_recorded(registry: Any, generation_id: str) -> v1.GenerationRecorded:
    [found] = await eventually(lambda: recorded(registry, generation_id))
    return found


async def serving(registry: Any, make_adapter: Any, domain: str, seed: int, version: str = "1.0.0") -> v1.Adapter:
    adapter = await registry.describe(make_adapter(seed=seed), domain, version)
    await registry.activate(adapter)
    return adapter


@pytest.mark.requirement("AM-2.3")
async def test_with_its_domains_consent_an_answer_is_recorded_with_all_that_made_it(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await serving(registry, make_adapter, domain, 51)
    silent = await serving(registry, make_adapter, f"{domain}x", 51)
    await permit(registry, domain, ALL)
    unpermitted = await answered(inference.client, silent.family)
    turns = [
        {"role": "system", "content": "Answer ann@example.com in one word."},
        {"role": "user", "content": "Which sea?"},
        {"role": "assistant", "content": "North."},
        {"role": "user", "content": QUESTION},
    ]
    asked = {"messages": turns, "user": "user-7", "seed": 3, "temperature": 0.5}
    forbidden = await answered(inference.client, adapter.family, store=False, **asked)
    body = await answered(inference.client, adapter.family, **asked)
    event = await first_recorded(registry, body["id"])
    assert (event.domain, event.adapter_id, event.requested_model) == (domain, adapter.adapter_id, adapter.family)
    assert event.artifact_sha256 == adapter.artifact.blob.sha256
    assert (event.base_model.name, event.base_model.revision) == ("tiny", adapter.base_model.revision)
    assert (event.sampling.temperature, event.sampling.seed, event.sampling.max_tokens) == (0.5, 3, 12)
    assert event.answer == text_of(body)
    assert [turn.content for turn in event.messages] == [
        "Answer [EMAIL] in one word.",
        "Which sea?",
        "North.",
        QUESTION,
    ]
    assert [turn.role for turn in event.messages] == ["system", "user", "assistant", "user"]
    assert (event.masked, event.subject, event.caller) == (("email",), "user-7", "admin")
    assert (event.consent.record_answers, event.consent.revision) == (ALL, 1)
    # Those were answered before the one that is recorded.
    for one in (unpermitted, forbidden):
        assert await recorded(registry, one["id"]) == []


async def test_a_continued_response_is_recorded_where_the_domains_of_its_earlier_answers_permit_it_too(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await serving(registry, make_adapter, domain, 51)
    silent = await serving(registry, make_adapter, f"{domain}x", 51)
    await permit(registry, domain, ALL)
    for one in (adapter, silent):
        await answered(inference.client, one.family, store=False)

    async def respond(model: str, **more: Any) -> str:
        body = {"model": model, "input": QUESTION, "temperature": 0, "max_output_tokens": 4, **more}
        answer = await inference.client.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        response_id: str = answer.json()["id"]
        return response_id

    unpermitted = await respond(adapter.family, previous_response_id=await respond(silent.family))
    forbidden = await respond(adapter.family, store=False)
    permitted = await respond(adapter.family, previous_response_id=await respond(adapter.family))
    event = await first_recorded(registry, permitted)
    assert [turn.role for turn in event.messages] == ["user", "assistant", "user"]
    for one in (unpermitted, forbidden):
        assert await recorded(registry, one) == []


async def test_an_answer_is_recorded_whichever_way_it_is_given(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await serving(registry, make_adapter, domain, 52)
    other = await serving(registry, make_adapter, f"{domain}x", 53)
    for one in (adapter, other):
        await permit(registry, one.domain, ALL)
        await answered(inference.client, one.family)
    body = {
        "model": adapter.family,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 5,
        "stream": True,
    }
    streamed = (await inference.client.post("/v1/chat/completions", json=body)).text
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    event = await first_recorded(registry, chunks[0]["id"])
    assert event.answer == "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)

    several = await answered(inference.client, adapter.family, n=2, temperature=1.0)
    ids = [one["generation_id"] for one in several["choices"]]
    assert ids[0] == several["id"] != ids[1]
    events = [await first_recorded(registry, one) for one in ids]
    assert [one.answer for one in events] == [one["message"]["content"] for one in several["choices"]]
    assert {one.comparison_id for one in events} == {several["lorafleet"]["comparison_id"]}

    mixed = await answered(inference.client, f"{adapter.family}:0.7+{other.family}:0.3")
    event = await first_recorded(registry, mixed["id"])
    assert [(one.adapter_id, one.weight) for one in event.mix] == [(adapter.adapter_id, 0.7), (other.adapter_id, 0.3)]
    # The stricter policy of the two holds for a set.
    await permit(registry, other.domain, NONE, revision=2)
    await answered(inference.client, other.family)

    async def no_longer() -> bool:
        unrecorded = await answered(inference.client, f"{adapter.family}:0.7+{other.family}:0.3")
        alone = await answered(inference.client, adapter.family)
        await first_recorded(registry, alone["id"])
        return not await recorded(registry, unrecorded["id"])

    await eventually(no_longer)

    completion = await inference.client.post(
        "/v1/completions", json={"model": adapter.family, "prompt": "The tide", "max_tokens": 4}
    )
    event = await first_recorded(registry, completion.json()["id"])
    assert [(turn.role, turn.content) for turn in event.messages] == [("user", "The tide")]

    await registry.deactivate(adapter)

    async def withdrawn() -> bool:
        return (await chat(inference.client, adapter.family)).status_code == 409

    await eventually(withdrawn)
    fallen = await answered(inference.client, adapter.family, fallback="tiny")
    event = await first_recorded(registry, fallen["id"])
    assert (event.domain, event.adapter_id, event.fallback) == (domain, "", "adapter_not_active")
    base = await answered(inference.client, "tiny")
    last = await answered(inference.client, adapter.family, fallback="tiny")
    await first_recorded(registry, last["id"])
    assert await recorded(registry, base["id"]) == [], "the base model's answer is no domain's data"


async def test_the_evaluators_questions_never_become_data(
    inference: Any, registry: Any, make_adapter: Any, domain: str, evaluator: Any
) -> None:
    adapter = await serving(registry, make_adapter, domain, 54)
    await permit(registry, domain, ALL)
    judged = await answered(evaluator, adapter.family)
    body = await answered(inference.client, adapter.family)
    await first_recorded(registry, body["id"])
    assert await recorded(registry, judged["id"]) == []


async def test_where_personal_data_is_dropped_an_answer_with_some_is_not_recorded(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await serving(registry, make_adapter, domain, 55)
    await permit(registry, domain, ALL, personal_data=DROP)
    telling = await answered(
        inference.client, adapter.family, messages=[{"role": "user", "content": "Write to ann@example.com"}]
    )
    plain = await answered(inference.client, adapter.family)
    await first_recorded(registry, plain["id"])
    assert await recorded(registry, telling["id"]) == []


async def test_a_rated_answer_is_recorded_when_its_feedback_comes_and_no_other(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await serving(registry, make_adapter, domain, 56)
    await permit(registry, domain, RATED)
    body, unrated = [await answered(inference.client, adapter.family) for _ in range(2)]
    given = {
        "generation_id": body["id"],
        "rating": 2,
        "correction": "It ebbs; ask bob@example.com.",
        "subject": "user-8",
    }
    accepted = await inference.client.post("/v1/feedback", json=given)
    assert accepted.status_code == 202, accepted.text
    # Both are on the bus when the response comes.
    [event] = await recorded(registry, body["id"])
    assert (event.answer, event.consent.record_answers) == (text_of(body), RATED)
    [feedback] = [one for one in await registry.published(v1.FeedbackRecorded) if one.generation_id == body["id"]]
    assert (feedback.rating, feedback.correction, feedback.subject) == (2, "It ebbs; ask [EMAIL].", "user-8")
    assert await recorded(registry, unrated["id"]) == []
    # Once the policy is withdrawn, feedback brings no answer out.
    await permit(registry, domain, NONE, revision=2)
    await permit(registry, f"{domain}z", ALL)
    later = await serving(registry, make_adapter, f"{domain}z", 56)
    await first_recorded(registry, (await answered(inference.client, later.family))["id"])
    assert (
        await inference.client.post("/v1/feedback", json={"generation_id": unrated["id"], "rating": 1})
    ).status_code == 202
    assert await recorded(registry, unrated["id"]) == []


@pytest.mark.parametrize(
    "body",
    [
        {"generation_id": "gen-x"},
        {"rating": 3},
        {"comparison_id": "cmp-x", "rating": 3},
        {"generation_id": "gen-x", "preferred": 0},
        {"generation_id": "gen-x", "comparison_id": "cmp-x", "preferred": 0},
        {"generation_id": "gen-x", "preferred_over": "gen-x"},
    ],
)
async def test_feedback_that_tells_nothing_of_one_answer_is_refused(inference: Any, body: dict[str, Any]) -> None:
    refused = await inference.client.post("/v1/feedback", json=body)
    assert refused.status_code in {400, 422}, refused.text


async def test_an_answer_that_is_too_large_for_the_bus_goes_by_way_of_the_object_store(
    registry: Any, service_env: Any, domain: str
) -> None:
    fields = {name.removeprefix("LORAFLEET_").lower(): value for name, value in service_env("inference").items()}
    settings = ServiceSettings(**{name: one for name, one in fields.items() if name in ServiceSettings.model_fields})
    policy = v1.PolicyChanged(domain=domain, revision=1, by="test", record_answers=ALL, personal_data=MASK)
    recorder = Recorder(
        registry.jetstream,
        Blobs("inference", settings),
        lambda: Consents().apply(policy),
        HeldForFeedback(1, 1),
        room=10**7,
    )
    long = "Write to ann@example.com. " * 15_000
    event = v1.GenerationRecorded(
        generation_id=f"gen-{domain}",
        domain=domain,
        base_model=v1.BaseModel(name="tiny", revision="0" * 64),
        sampling=v1.Sampling(),
        messages=(v1.Turn(role="user", content=long),),
        answer="So be it.",
        consent=v1.Consent(record_answers=ALL, personal_data=MASK, revision=1),
    )
    recorder.take(PendingAnswer(event, frozenset({domain})))
    running = asyncio.create_task(recorder.run())
    try:
        event_on_bus = await first_recorded(registry, event.generation_id)
    finally:
        running.cancel()
    assert (event_on_bus.messages, event_on_bus.answer, event_on_bus.masked) == ((), "", ("email",))
    # The trainer's own key reads it.
    assert event_on_bus.content is not None
    content = json.loads(await registry.blobs.get(event_on_bus.content))
    assert content == {
        "generation_id": event.generation_id,
        "messages": [{"role": "user", "content": long.replace("ann@example.com", "[EMAIL]")}],
        "answer": "So be it.",
    }


async def test_large_texts_go_once_they_are_old_whether_they_were_published_or_not(
    servers: Fleet, service_env: ServiceEnv
) -> None:
    bucket, key = f"texts-{secrets.token_hex(4)}", servers.credentials.s3["admin"]
    s3_client(servers.ports["s3"], key).make_bucket(bucket)
    fields = {name.removeprefix("LORAFLEET_").lower(): value for name, value in service_env("inference").items()}
    fields |= {"s3_bucket": bucket, "s3_access_key": key.access, "s3_secret_key": key.secret}
    settings = ServiceSettings(**{name: one for name, one in fields.items() if name in ServiceSettings.model_fields})
    blobs = Blobs("inference", settings)
    content = await blobs.put("answers", b"of a replica that was killed before it published")
    assert await sweep_aged(blobs, "answers", timedelta(days=2)) == 0
    assert await blobs.get(content)
    await eventually(lambda: _swept(blobs))
    with pytest.raises(BlobMissing):
        await blobs.get(content)


async def _swept(blobs: Blobs) -> bool:
    # A store keeps whole seconds.
    return await sweep_aged(blobs, "answers", timedelta(seconds=1)) == 1
