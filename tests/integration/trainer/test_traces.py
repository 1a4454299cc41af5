"""One trace from a request over HTTP through outbox, bus and inbox, into the training's process and the next service."""

import secrets
from pathlib import Path

import httpx
import pytest

from fleet_kit.blobs import Blobs
from fleet_kit.settings import ServiceSettings
from tests.conftest import RunService
from tests.integration.otlp import Collector, ReceivedSpan, running_collector
from tests.integration.trainer.conftest import SHORT, Bench, Upstream, eventually, pairs

pytestmark = pytest.mark.integration

SERVER, CONSUMER = 2, 5


def one(collector: Collector, trace_id: str, service: str, name: str) -> ReceivedSpan:
    (found,) = [span for span in collector.of(trace_id) if (span.service, span.name) == (service, name)]
    return found


def lineage(collector: Collector, span: ReceivedSpan) -> list[str]:
    """The span behind those that led to it, from the first span of the trace on."""
    before = [lineage(collector, parent) for parent in collector.of(span.trace_id) if parent.span_id == span.parent_id]
    return [*(before[0] if before else []), f"{span.service}: {span.name}"]


async def answered(client: httpx.AsyncClient, path: str) -> bool:
    """Whether the service's own parts are open, which readiness does not wait for."""
    return (await client.get(path)).status_code == 200


async def test_a_request_is_one_trace_over_two_services_and_the_training_s_process(
    run_service: RunService, jetstream, tiny_model: Path, tmp_path: Path
) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    with running_collector() as collector:
        shared = {
            "LORAFLEET_BASE_MODEL": str(tiny_model),
            "LORAFLEET_BASE_MODEL_NAME": "tiny-llama",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        async with (
            run_service("registry", **shared),
            run_service("trainer", LORAFLEET_CACHE_DIR=str(tmp_path), LORAFLEET_THREADS="1", **shared) as trainer,
        ):
            values = {name.removeprefix("LORAFLEET_").lower(): value for name, value in trainer.env.items()}
            blobs = Blobs("trainer", ServiceSettings.model_validate(values))
            bench = Bench(trainer, Upstream(jetstream), blobs, f"d{secrets.token_hex(4)}")
            await bench.record(pairs(bench.domain))
            await eventually(lambda: answered(trainer.client, "/v1/jobs"))
            asked = await trainer.client.post(
                "/v1/jobs",
                json={"domain": bench.domain, "hyperparameters": {**SHORT, "epochs": 1}},
                headers={"traceparent": f"00-{trace_id}-{caller}-01"},
            )
            assert asked.status_code == 202, asked.text
            await bench.until(asked.json()["job_id"], "succeeded")

            async def registered() -> bool:
                return any(span.name == "handle TrainingCompleted" for span in collector.of(trace_id))

            await eventually(registered)
        # Both have ended: whatever they had not sent by then was flushed.
        assert collector.faults == []

        request = one(collector, trace_id, "trainer", "POST /v1/jobs")
        assert (request.parent_id, request.kind) == (caller, SERVER)
        assert request.attributes == {
            "http.request.method": "POST",
            "http.route": "/v1/jobs",
            "http.response.status_code": 202,
        }
        handled = ["trainer: POST /v1/jobs", "trainer: handle TrainingQueued"]
        process = one(collector, trace_id, "trainer", "train lora")
        assert lineage(collector, process) == [*handled, "trainer: train lora"]
        completed = one(collector, trace_id, "registry", "handle TrainingCompleted")
        assert lineage(collector, completed) == [*handled, "registry: handle TrainingCompleted"]
        assert completed.kind == CONSUMER
        assert completed.attributes["messaging.consumer.group.name"] == "registry-training_completed"
        assert not [span for span in collector.spans if span.name.endswith(("/healthz", "/readyz"))]
