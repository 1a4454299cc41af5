"""The evaluator's objects on a real store: what evaluations refer to stays, what a killed one left goes."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from fleet_cli.stack.fleet import Fleet
from fleet_cli.stack.objects import s3_client
from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from fleet_kit.settings import ServiceSettings
from tests.conftest import RunningService, RunService
from tests.integration.evaluator.conftest import eventually
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
async def keeper(run_service: RunService, models: ModelServer, servers: Fleet) -> AsyncIterator[RunningService]:
    bucket, key = f"gc-{secrets.token_hex(4)}", servers.credentials.s3["admin"]
    s3_client(servers.ports["s3"], key).make_bucket(bucket)
    async with run_service(
        "evaluator",
        LORAFLEET_INFERENCE_URL=models.url,
        LORAFLEET_S3_BUCKET=bucket,
        LORAFLEET_S3_ACCESS_KEY=key.access,
        LORAFLEET_S3_SECRET_KEY=key.secret,
        LORAFLEET_GC_GRACE_HOURS=str(2 / 3600),
    ) as running:
        yield running


async def test_reports_and_exchanges_that_are_referred_to_stay_and_scores_are_left_to_the_registry(
    keeper: RunningService,
) -> None:
    fields = {name.removeprefix("LORAFLEET_").lower(): value for name, value in keeper.env.items()}
    blobs = Blobs(
        "evaluator",
        ServiceSettings(**{name: one for name, one in fields.items() if name in ServiceSettings.model_fields}),
    )
    report, request, answer = [
        await blobs.put(kind, f"referred to: {n}".encode()) for n, kind in enumerate(("reports", "judging", "judging"))
    ]
    orphans = [await blobs.put(kind, f"left behind in {kind}".encode()) for kind in ("reports", "judging")]
    scores = await blobs.put("scores", b"{}")
    connection = await asyncpg.connect(
        keeper.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    await connection.execute(
        "insert into evaluation (evaluation_id, adapter_id, family, domain, artifact_sha256, base_model,"
        " wanted_dataset, judge, max_tokens, pass_threshold, state, report, requested_by)"
        " values ('e1', 'd-lora-v1.0.0', 'd-lora', 'd', '', 'm', '', 'reference', 1, 70, 'scored', $1, 'test')",
        json.dumps(report.model_dump(mode="json")),
    )
    await connection.execute(
        "insert into judge_exchange (evaluation_id, sample_id, request_sha256, answer_sha256, request, answer,"
        " prompt_tokens, answer_tokens, cost, seconds) values ('e1', 's1', $1, $2, $3, $4, 1, 1, 0, 0)",
        request.sha256,
        answer.sha256,
        json.dumps(request.model_dump(mode="json")),
        json.dumps(answer.model_dump(mode="json")),
    )
    await connection.close()

    async def collected(*, apply: bool) -> dict[str, Any]:
        reply = await keeper.client.post("/v1/gc", json={"apply": apply})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def orphaned() -> bool:
        found = await collected(apply=False)
        return found["refused"] == "" and sum(one["unreferenced"] for one in found["kinds"]) == len(orphans)

    await eventually(orphaned)
    assert sum(one["deleted"] for one in (await collected(apply=True))["kinds"]) == len(orphans)
    for kept in (report, request, answer, scores):
        assert await blobs.get(v1.Blob.model_validate(kept))
    for gone in orphans:
        with pytest.raises(BlobMissing):
            await blobs.get(gone)
