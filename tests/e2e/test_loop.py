"""One event in, a trained, judged, approved adapter answering out."""

import pytest

from fleet_events import v1

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.requirement("LA-4.3")
@pytest.mark.requirement("AM-3.1")
@pytest.mark.requirement("TP-5.1")
async def test_one_event_takes_an_adapter_all_the_way_and_its_provenance_is_whole(new_loop) -> None:
    async with new_loop("harbour") as loop:
        before = await loop.ask("auto")
        assert before.status_code == 200, before.text
        assert before.json()["lorafleet"]["adapter_id"] in {"", None}
        await loop.request()
        await loop.finished_once()

        completed = (await loop.events(v1.TrainingCompleted))[0]
        answer = (await loop.ask(loop.family)).json()
        assert answer["lorafleet"]["artifact_sha256"] == completed.artifact.blob.sha256
        base = (await loop.ask(completed.base_model.name)).json()
        assert base["choices"][0]["message"]["content"] != answer["choices"][0]["message"]["content"]

        async def followed() -> bool:  # until then it is not found
            traced = await loop.get("registry", f"/v1/answers/{answer['id']}/provenance")
            (adapter,) = traced["adapters"]
            assert adapter["adapter_id"] == loop.adapter_id
            assert adapter["chain"][0]["dataset"]["sha256"] == completed.dataset.blob.sha256
            assert traced["base_model"]["revision"] == completed.base_model.revision
            return True

        await loop.until(followed, 20)

        chain = await loop.get("registry", f"/v1/adapters/{loop.adapter_id}/provenance")
        text = str(chain)
        for digest in (
            completed.dataset.blob.sha256,
            completed.configuration_sha256,
            completed.base_model.revision,
            completed.checkpoint.sha256,
            completed.artifact.blob.sha256,
        ):
            assert digest in text

        async def routed() -> bool:
            return (await loop.ask("auto")).json()["lorafleet"]["adapter_id"] == loop.adapter_id

        await loop.until(routed, 20)

        async def counted() -> bool:
            adapter = await loop.adapter()
            return adapter is not None and adapter["usage"]["answers"] > 0

        await loop.until(counted, 20)
        await _what_people_say_of_an_answer_becomes_data(loop)
        assert await loop.dead_letters() == 0


async def _what_people_say_of_an_answer_becomes_data(loop) -> None:
    """From the registry's policy by way of inference to the trainer's live records."""
    policy = await loop.get("registry", f"/v1/policies/{loop.domain}")
    at = loop.url("registry", f"/v1/policies/{loop.domain}")
    (await loop.http.put(at, json=policy | {"record_answers": "rated"})).raise_for_status()

    async def used() -> bool:  # the first answers may be given before inference knows the policy
        answer = (await loop.ask(loop.family)).json()
        given = {"generation_id": answer["id"], "rating": 2, "correction": "Ask the harbour master."}
        (await loop.http.post(loop.url("inference", "/v1/feedback"), json=given)).raise_for_status()
        found = await loop.get("trainer", f"/v1/feedback?domain={loop.domain}&state=used")
        return bool(found["feedback"])

    await loop.until(used, 30)
    [recorded, *_] = (await loop.get("trainer", f"/v1/answers?domain={loop.domain}"))["answers"]
    assert (recorded["adapter_id"], recorded["consent"]["record_answers"]) == (loop.adapter_id, "rated")


@pytest.mark.heavy  # tests/integration/trainer/test_jobs.py proves the same of the trainer alone
async def test_the_same_request_three_times_trains_one_adapter(new_loop) -> None:
    async with new_loop("echo-bay") as loop:
        for copy in ("", "-again", "-and-again"):
            event = v1.TrainingRequested(
                domain=loop.domain,
                job_id=loop.job_id,
                golden_dataset_id=loop.golden_id,
                hyperparameters=v1.Hyperparameters(rank=4, max_steps=2, batch_size=4, learning_rate=2e-3),
            )
            await loop.publish(event, f"{loop.domain}-request", copy)
        await loop.finished_once()
        assert len((await loop.get("registry", f"/v1/adapters?domain={loop.domain}"))["adapters"]) == 1
