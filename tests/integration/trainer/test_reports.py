"""What a job tells while it runs and leaves behind when it is done, on the real servers."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from services.trainer.jobs import store
from services.trainer.reports.stream import PAGE
from services.trainer.training.protocol import Stepped, Validated
from tests.integration.trainer.conftest import SHORT, Bench, Upstream, eventually, pairs
from tests.integration.trainer.following import DOMAIN, STEPS, Trained, Watched, listen
from tests.integration.trainer.following import trained as trained
from tests.integration.trainer.following import watched as watched

pytestmark = pytest.mark.integration


# Before the tests that wait for the job's end: it needs one that still runs.
@pytest.mark.requirement("TP-3.1")
async def test_a_reader_that_goes_away_frees_its_place_and_another_tenant_gets_no_stream(
    bench: Bench, watched: Watched
) -> None:
    client, job_id = bench.trainer.client, watched.job_id
    readers = [asyncio.create_task(listen(client, job_id)) for _ in range(3)]
    await eventually(lambda: _gauge(client, "lorafleet_training_streams", 4.0), 20)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    stranger = {"Authorization": f"Bearer {bench.trainer.mint(['train'], ['elsewhere'])}"}
    for path in ("metrics/stream", "metrics", "report", "peft"):
        assert (await client.get(f"/v1/jobs/{job_id}/{path}", headers=stranger)).status_code == 404
    early = await client.get(f"/v1/jobs/{job_id}/report.html")
    assert early.status_code == 404
    assert "report" in early.json()["detail"]
    await eventually(lambda: _gauge(client, "lorafleet_training_streams", 1.0), 60)
    assert not watched.reading.done(), "the job ended before its readers could go away: give it more steps"


@pytest.mark.requirement("TP-3.1")
async def test_the_stream_tells_every_step_and_validation_once_in_order_and_ends_with_the_job(trained: Trained) -> None:
    followed = trained.followed
    assert [one["step"] for one in followed.of("step")] == list(range(1, STEPS + 1))
    assert all(one["peak_memory_bytes"] > 50 * 2**20 for one in followed.of("step"))
    assert [one["step"] for one in followed.of("validation")] == [5, 10, 15, 20]
    states = [one["state"] for one in followed.of("state")]
    assert states[-1] == "succeeded"
    assert "running" in states
    assert [one["final"] for one in followed.of("state")] == [False] * (len(states) - 1) + [True]
    assert followed.events[-1][0] == "state"
    assert len(followed.retries) == 1
    order = [(kind, data.get("step")) for kind, _, data in followed.events if kind != "state"]
    assert order.index(("validation", 5)) == order.index(("step", 5)) + 1
    polled = (await trained.get("metrics")).json()
    assert polled["metrics"] == followed.of("step")
    assert polled["validations"] == followed.of("validation")


@pytest.mark.requirement("TP-3.1")
async def test_a_reader_that_was_cut_off_goes_on_behind_its_last_event(trained: Trained) -> None:
    client = trained.trainer.client
    first = await listen(client, trained.job_id, until=8)
    second = await listen(client, trained.job_id, last_id=first.last_id)
    both = first.of("step") + second.of("step")
    assert [one["step"] for one in both] == list(range(1, STEPS + 1))
    assert [one["step"] for one in first.of("validation") + second.of("validation")] == [5, 10, 15, 20]
    again = await listen(client, trained.job_id, last_id=second.last_id)
    assert [kind for kind, _, _ in again.events] == ["state"]
    refused = await client.get(f"/v1/jobs/{trained.job_id}/metrics/stream", headers={"Last-Event-ID": "yesterday"})
    assert refused.status_code == 422
    assert "yesterday" in refused.json()["detail"]


@pytest.mark.requirement("TP-3.1")
async def test_the_stream_of_a_job_that_never_ran_ends_with_its_cancellation(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    job_id = await bench.submit(hyperparameters={**SHORT, "maxSteps": 5000})
    reading = asyncio.create_task(listen(bench.trainer.client, job_id))
    await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")
    followed = await reading
    assert followed.of("state")[-1]["state"] == "cancelled"
    assert followed.of("step") == []


@pytest.mark.requirement("TP-3.1")
async def test_a_long_course_is_told_page_by_page_without_a_gap(bench: Bench) -> None:
    """Rows as a worker writes them, in numbers that would take hours to train."""
    await bench.record(pairs(bench.domain, 4))
    job_id = await bench.submit(hyperparameters={**SHORT, "maxSteps": 5000})
    await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")
    await bench.until(job_id, "cancelled")
    pages, validated = 2 * PAGE + 1, [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1]
    step = {"epoch": 0.0, "loss": 1.0, "learning_rate": 0.1, "gradient_norm": 1.0, "tokens": 1, "seconds": 1.0}
    connection = await asyncpg.connect(bench.trainer.env["LORAFLEET_DATABASE_URL"])
    try:
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        await connection.execute("set search_path to trainer, public")
        await store.add_steps(connection, job_id, [Stepped(step=one, **step) for one in range(1, pages + 1)])
        measured = {"epoch": 0.0, "loss": 1.0, "seconds": 1.0, "best": False, "metrics": {"accuracy": 0.5}}
        await store.add_validations(connection, job_id, [Validated(step=one, **measured) for one in validated])
    finally:
        await connection.close()
    followed = await listen(bench.trainer.client, job_id)
    assert [one["step"] for one in followed.of("step")] == list(range(1, pages + 1))
    assert [one["step"] for one in followed.of("validation")] == validated
    rows = [(data["step"], kind) for kind, _, data in followed.events if kind != "state"]
    assert rows == sorted(rows)
    rest = await listen(bench.trainer.client, job_id, last_id=f"{PAGE}.{PAGE - 1}")
    assert [one["step"] for one in rest.of("step")] == list(range(PAGE + 1, pages + 1))
    assert [one["step"] for one in rest.of("validation")] == validated[1:]


@pytest.mark.requirement("TP-3.1")
async def test_steps_and_tokens_are_counted_for_prometheus(trained: Trained) -> None:
    exposed = await _exposed(trained.trainer.client)
    assert exposed["lorafleet_training_steps_total"] >= STEPS
    assert exposed["lorafleet_training_tokens_total"] > exposed["lorafleet_training_steps_total"]
    assert exposed["lorafleet_training_validations_total"] >= 4

    async def counted() -> bool:
        return (await _exposed(trained.trainer.client)).get('lorafleet_training_jobs{state="succeeded"}', 0) >= 1

    await eventually(counted, 20)


@pytest.mark.requirement("TP-5.2")
async def test_the_report_says_what_was_trained_on_how_long_and_how_well(trained: Trained) -> None:
    report = await trained.report()
    assert (report.job_id, report.domain, report.objective) == (trained.job_id, DOMAIN, "sft")
    assert report.results.steps == STEPS
    assert report.dataset.trained_samples + report.dataset.validation_samples == 24
    assert report.dataset.validation_samples > 0
    assert [one.step for one in report.validations] == [5, 10, 15, 20]
    best = min(report.validations, key=lambda one: one.loss)
    assert report.results.best_validation_loss == best.loss
    assert report.results.validation_loss == pytest.approx(
        best.loss if report.results.best_step else report.validations[-1].loss
    )
    assert report.energy is not None
    assert report.energy.watt_hours > 0
    assert 0 < report.energy.processor_seconds < 600
    assert report.results.peak_memory_bytes > 50 * 2**20
    assert {"python", "torch", "peft", "processor", "cores", "memory"} <= report.environment.keys()
    assert 1 <= len(report.samples) <= 3
    assert all(one.before != one.after for one in report.samples)


@pytest.mark.requirement("TP-5.2")
async def test_a_browser_gets_the_page_and_a_program_the_document(trained: Trained) -> None:
    page = await trained.get("report", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["vary"] == "Accept"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "opens &lt;gates&gt;" in page.text
    assert (await trained.get("report.html")).text == page.text
    document = await trained.get("report", Accept="*/*")
    assert document.headers["content-type"] == "application/json"


@pytest.mark.requirement("AS-2.3")
async def test_exports_are_stored_with_their_measures_and_can_be_had(
    trained: Trained, upstream: Upstream, tiny_model: Path, tmp_path: Path
) -> None:
    from lora_core import LoRAFormat
    from lora_core.interop import from_gguf

    report = await trained.report()
    int8, gguf = report.exports
    assert (int8.kind, int8.quality_threshold, gguf.kind, gguf.fit) == ("int8", 0.98, "gguf", True)
    assert int8.same_token is not None
    assert int8.fit == (int8.same_token >= 0.98)
    (tmp_path / "int8.arrow").write_bytes((await trained.get("exports/int8")).content)
    (tmp_path / "a.gguf").write_bytes((await trained.get("exports/gguf")).content)
    ours = LoRAFormat.load(tmp_path / "int8.arrow")
    assert set(from_gguf(tmp_path / "a.gguf", tiny_model).weights) == set(ours.weights)
    job = (await trained.trainer.client.get(f"/v1/jobs/{trained.job_id}")).json()
    assert [(one["kind"], one["fit"], one["blob"]["sha256"]) for one in job["exports"]] == [
        (one.kind, one.fit, one.blob.sha256) for one in report.exports
    ]
    assert int8.blob.bytes == (tmp_path / "int8.arrow").stat().st_size < report.files["artifact"].bytes
    missing = await trained.trainer.client.get(f"/v1/jobs/{trained.job_id}/exports/int4")
    assert missing.status_code == 404
    assert "int8, gguf" in missing.json()["detail"]


@pytest.mark.requirement("TP-5.1")
async def test_the_peft_folder_is_loaded_by_peft_and_answers_as_the_job_recorded(
    trained: Trained, tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from huggingface_hub import ModelCard
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answer = await trained.get("peft")
    assert re.search(r'filename="[A-Za-z0-9._-]+\.tar"', answer.headers["content-disposition"])
    assert (await trained.get("peft")).content == answer.content
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as packed:
        assert packed.getnames() == ["adapter_config.json", "adapter_model.safetensors", "README.md"]
        packed.extractall(tmp_path, filter="data")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data.library_name) == ("tiny-llama", "peft")
    assert (tmp_path / "README.md").read_text() == (await trained.get("model-card")).text

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, tmp_path).eval()
    probe = (await trained.report()).probe
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = [{"role": "user", "content": probe.prompt}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    assert logits[list(probe.top_ids)].tolist() == pytest.approx(list(probe.top_logits), abs=1e-3)
    # PEFT keeps our card when it saves the model again.
    model.save_pretrained(tmp_path / "again")
    model.create_or_update_model_card(str(tmp_path))
    assert "How to use it" in (tmp_path / "README.md").read_text()


@pytest.fixture
def upstream(jetstream: Any) -> Upstream:
    return Upstream(jetstream)


async def _exposed(client: httpx.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (one.rpartition(" ") for one in lines if not one.startswith("#"))}


async def _gauge(client: httpx.AsyncClient, name: str, value: float) -> bool:
    return (await _exposed(client)).get(name) == value
