"""Records that a served model writes: our own inference, asked over the OpenAI protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.trainer.datasets.generators import GenerationReport, GeneratorRecipe, generate
from services.trainer.datasets.generators.endpoint import ChatClient, Endpoint, EndpointFailed, Question
from services.trainer.datasets.records import Kind, Record, prompt_messages
from tests.conftest import Mint, RunningService, RunService
from tests.integration.trainer.conftest import eventually

pytestmark = [pytest.mark.integration, pytest.mark.requirement("AS-3.1")]

MODEL = "SmolLM2-135M-Instruct"
RECORDS = tuple(
    Record(Kind.COMPLETION, prompt_messages(f"What is the capital of {country}?"), (f"It is {city}.",), rating=4.0)
    for country, city in (("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Austria", "Vienna"))
)


@pytest.fixture(scope="module")
async def inference(
    run_service: RunService, base_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    async with run_service(
        "inference",
        LORAFLEET_BASE_MODEL=str(base_model),
        LORAFLEET_BASE_MODEL_NAME=MODEL,
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("inference")),
    ) as running:
        yield running


@pytest.fixture
def endpoint(inference: RunningService, mint: Mint) -> Endpoint:
    return Endpoint(
        url=f"{inference.url}/v1", model=MODEL, token=mint(scopes=["generate"], domains=["*"]), act_for=("capitals",)
    )


def generated(endpoint: Endpoint, **recipe: object) -> tuple[list[Record], GenerationReport]:
    report = GenerationReport()
    one = {"name": "asked", "kind": "back_generation", "max_tokens": 12, **recipe}
    parsed = GeneratorRecipe.model_validate({"generators": [one]})
    return list(generate(parsed, Kind.COMPLETION, lambda: iter(RECORDS), {"inference": endpoint}, report)), report


async def test_a_served_model_writes_records_that_say_so_and_writes_the_same_again(endpoint: Endpoint) -> None:
    recipe = {"makes": "completion", "instruction": "{prompt} Answer in one short sentence.", "max_tokens": 32}
    (written, report), (again, _) = [await asyncio.to_thread(generated, endpoint, **recipe) for _ in range(2)]
    count = report.generators["asked"]
    assert (count.requests, count.model) == (len(RECORDS), MODEL)
    assert count.made + count.cut + count.blank + count.equal == len(RECORDS)
    assert len(written) == count.made > 0
    assert written == again
    sources = {one.record_id: one for one in RECORDS}
    for one in written:
        assert one.synthetic
        assert one.rating is None
        assert one.origin == f"back_generation asked with {MODEL}"
        assert one.prompt == sources[one.source_id].prompt
        assert one.completions != sources[one.source_id].completions


async def test_an_answer_that_stops_at_its_limit_or_says_what_was_there_is_no_record(endpoint: Endpoint) -> None:
    written, report = await asyncio.to_thread(generated, endpoint, max_tokens=2)
    assert written == []
    assert report.generators["asked"].cut == len(RECORDS)


async def test_answers_come_in_the_order_of_the_questions_however_many_are_under_way(endpoint: Endpoint) -> None:
    questions = [Question(f"Name the number {number}.", 0.0, 2 + number % 5, 0) for number in range(4)]

    def ask(concurrency: int) -> list[str]:
        with ChatClient(endpoint.model_copy(update={"concurrency": concurrency}), "") as client:
            return [answer.text for answer in client.answers(questions)]

    alone, together = await asyncio.to_thread(ask, 1), await asyncio.to_thread(ask, 4)
    assert together == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "no-such-model"}, "404"),
        ({"token": "nonsense"}, "401"),
    ],
)
async def test_an_endpoint_that_refuses_ends_the_build_with_its_own_words(
    endpoint: Endpoint, change: dict[str, str], named: str
) -> None:
    with pytest.raises(EndpointFailed, match=named):
        await asyncio.to_thread(generated, endpoint.model_copy(update=change))


async def test_an_endpoint_that_is_not_there_is_asked_again_and_then_ends_the_build(endpoint: Endpoint) -> None:
    gone = endpoint.model_copy(update={"url": "http://127.0.0.1:9/v1"})

    def ask() -> None:
        with ChatClient(gone, "", pause=0.01) as client:
            list(client.answers([Question("Anybody?", 0.0, 4, 0)]))

    with pytest.raises(EndpointFailed, match="ConnectError"):
        await asyncio.to_thread(ask)


async def test_a_recipe_grows_its_data_set_with_the_served_model_and_its_card_says_so(
    run_service: RunService, endpoint: Endpoint, base_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(endpoint.token)
    named = {"url": endpoint.url, "model": MODEL, "token_file": str(tmp_path / "token")}
    answers = {"kind": "back_generation", "name": "answers", "makes": "completion", "max_tokens": 32}
    recipe = {
        "domain": "capitals",
        "name": "grown",
        "sources": [{"kind": "live"}],
        "generators": {
            "generators": [
                {**answers, "instruction": "{prompt} Answer in one short sentence."},
                {"kind": "paraphrase", "name": "polite", "forms": ["Please: {prompt}"]},
            ]
        },
    }
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(base_model),
        LORAFLEET_BASE_MODEL_NAME=MODEL,
        LORAFLEET_CACHE_DIR=str(tmp_path / "cache"),
        LORAFLEET_GENERATION_ENDPOINTS=json.dumps({"inference": named}),
    ) as trainer:
        lines = [{"prompt": one.prompt_text, "completion": one.completions[0]} for one in RECORDS]
        await trainer.client.post(
            "/v1/samples", params={"domain": "capitals"}, content="".join(json.dumps(line) + "\n" for line in lines)
        )
        queued = await trainer.client.post("/v1/datasets", json=recipe)
        assert queued.status_code == 202, queued.text

        async def built() -> dict[str, Any] | None:
            build = (await trainer.client.get(f"/v1/datasets/builds/{queued.json()['build_id']}")).json()
            assert build["state"] != "failed", build
            return build if build["state"] == "succeeded" else None

        build = await eventually(built)
        card = (await trainer.client.get(f"/v1/datasets/{build['dataset_id']}/card")).json()
        distilled = await _distilled(trainer, build["dataset_id"])
        body = {"domain": "capitals", "dataset_id": build["dataset_id"], "distil_from": "capitals-lora-v9.9.9"}
        refused = await trainer.client.post("/v1/jobs", json=body)
    assert refused.status_code == 422, "before anything is built"
    (fault,) = refused.json()["faults"]
    assert (fault["field"], "on a base model and revision that it hosts" in fault["expected"]) == ("distil_from", True)
    assert distilled["sources"][0]["described"] == {"kind": "dataset", "dataset_id": build["dataset_id"]}
    asked = distilled["generated"]["generators"]["distillation"]
    assert (asked["model"], asked["requests"]) == (MODEL, len(RECORDS))
    assert distilled["samples"] == asked["made"] > 0
    assert distilled["origins"] == {f"distilled from {MODEL}": asked["made"]}, "in the place of what people wrote"
    made = card["generated"]["generators"]
    assert made["polite"]["made"] == len(RECORDS)
    assert made["answers"]["requests"] == len(RECORDS)
    assert card["synthetic"] == card["samples"] - len(RECORDS) > len(RECORDS)
    assert card["origins"][f"back_generation answers with {MODEL}"] >= 1


async def _distilled(trainer: RunningService, dataset_id: str) -> dict[str, Any]:
    """The card of what a job trains on that takes a data set's prompts and a served model's answers."""
    body = {"domain": "capitals", "dataset_id": dataset_id, "distil_from": MODEL, "hyperparameters": {"maxSteps": 1}}
    queued = await trainer.client.post("/v1/jobs", json=body)
    assert queued.status_code == 202, queued.text
    job_id = queued.json()["job_id"]

    async def settled() -> str | None:
        job = (await trainer.client.get(f"/v1/jobs/{job_id}")).json()
        assert not job["error"], job
        return job["dataset"] if job["dataset"] not in (None, "", dataset_id) else None

    found = await eventually(settled, 120)
    await trainer.client.post(f"/v1/jobs/{job_id}/cancel")  # the training itself is tested elsewhere
    return dict((await trainer.client.get(f"/v1/datasets/{found}/card")).json())
