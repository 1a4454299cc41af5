"""The evaluator's objects on a real store: what evaluations refer to stays, what a killed one left goes."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest

from fleet_cli.stack.fleet import Fleet
from fleet_cli.stack.objects import s3_client
from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from fleet_kit.settings import ServiceSettings
from services.evaluator.domain import EvaluationFailure
from services.evaluator.golden.sets import freeze_for
from tests.conftest import RunningService, RunService
from tests.integration.evaluator.conftest import Bus, consumed, eventually
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration

NDJSON = {"Content-Type": "application/x-ndjson"}


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
        LORAFLEET_GOLDEN_RETENTION='{"brief": {"superseded_days": 0}}',
        LORAFLEET_EVALUATION_RETENTION='{"brief": {"released_days": 0}}',
    ) as running:
        yield running


@dataclass
class Kept:
    """An evaluator's rows, and its objects."""

    keeper: RunningService
    rows: asyncpg.Connection
    blobs: Blobs

    async def evaluation(self, name: str, domain: str) -> list[v1.Blob]:
        """A scored evaluation of a version of its own with two answers, one of them with a person's score."""
        report, request, answer = [
            await self.blobs.put(kind, f"{name} {n}".encode())
            for n, kind in enumerate(("reports", "judging", "judging"))
        ]
        await self.rows.execute(
            "insert into evaluation (evaluation_id, adapter_id, family, domain, artifact_sha256, base_model,"
            " wanted_dataset, judge, max_tokens, pass_threshold, state, report, requested_by)"
            " values ($1, $1 || '-v1', $1, $2, '', 'm', '', 'reference', 1, 70, 'scored', $3, 'test')",
            name,
            domain,
            json.dumps(report.model_dump(mode="json")),
        )
        for sample in ("s1", "s2"):
            await self.rows.execute(
                "insert into sample_result (evaluation_id, sample_id, answer, generation_id, finish_reason, overall,"
                " verdicts, evidence) values ($1, $2, 'An answer.', 'g', 'stop', 80, '{}', '{}')",
                name,
                sample,
            )
        await self.rows.execute(
            "insert into human_label (evaluation_id, sample_id, labelled_by, score) values ($1, 's1', 'ann', 90)", name
        )
        await self.rows.execute(
            "insert into judge_exchange (evaluation_id, sample_id, request_sha256, answer_sha256, request, answer,"
            " prompt_tokens, answer_tokens, cost, seconds) values ($1, 's1', $2, $3, $4, $5, 1, 1, 0, 0)",
            name,
            request.sha256,
            answer.sha256,
            json.dumps(request.model_dump(mode="json")),
            json.dumps(answer.model_dump(mode="json")),
        )
        return [report, request, answer]

    async def collected(self, *, apply: bool) -> dict[str, Any]:
        reply = await self.keeper.client.post("/v1/gc", json={"apply": apply})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def unreferenced(self, count: int) -> bool:
        found = await self.collected(apply=False)
        return found["refused"] == "" and sum(one["unreferenced"] for one in found["kinds"]) == count

    async def gone(self, blob: v1.Blob) -> bool:
        try:
            await self.blobs.get(blob)
        except BlobMissing:
            return True
        return False


@pytest.fixture
async def kept(keeper: RunningService) -> AsyncIterator[Kept]:
    fields = {name.removeprefix("LORAFLEET_").lower(): value for name, value in keeper.env.items()}
    known = {name: one for name, one in fields.items() if name in ServiceSettings.model_fields}
    rows = await asyncpg.connect(keeper.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"})
    yield Kept(keeper, rows, Blobs("evaluator", ServiceSettings(**known)))
    await rows.close()


async def test_reports_and_exchanges_that_are_referred_to_stay_and_scores_are_left_to_the_registry(kept: Kept) -> None:
    referred = await kept.evaluation("e1", "shop")
    orphans = [await kept.blobs.put(kind, f"left behind in {kind}".encode()) for kind in ("reports", "judging")]
    scores = await kept.blobs.put("scores", b"{}")
    await eventually(lambda: kept.unreferenced(len(orphans)))
    assert sum(one["deleted"] for one in (await kept.collected(apply=True))["kinds"]) == len(orphans)
    assert [await kept.gone(one) for one in (*referred, scores)] == [False] * 4
    assert [await kept.gone(one) for one in orphans] == [True] * 2


async def test_what_was_judged_of_a_released_version_goes_where_its_domain_s_rule_has_it_but_for_peoples_scores(
    kept: Kept, bus: Bus
) -> None:
    stays, goes = await kept.evaluation("e2", "shop"), await kept.evaluation("e3", "brief")
    for name, domain in (("e2", "shop"), ("e3", "brief")):
        event = v1.AdapterReleased(adapter_id=f"{name}-v1", family=name, domain=domain, revision=2, by="retention")
        await bus.publish(event, "registry", name)
    await consumed(bus, v1.AdapterReleased)
    listed = (await kept.collected(apply=False))["evaluations"]
    assert [(one["evaluation_id"], one["domain"]) for one in listed] == [("e3", "brief")]
    await kept.collected(apply=True)

    async def all_gone() -> bool:
        await kept.collected(apply=True)
        return all([await kept.gone(one) for one in goes])

    await eventually(all_gone)
    assert [await kept.gone(one) for one in stays] == [False] * 3
    left = await kept.rows.fetch(
        "select evaluation_id, sample_id from sample_result where evaluation_id in ('e2', 'e3')"
    )
    assert {tuple(one) for one in left} == {("e2", "s1"), ("e2", "s2"), ("e3", "s1")}
    assert await kept.rows.fetchval("select state from evaluation where evaluation_id = 'e3'") == "scored"


@pytest.mark.requirement("LA-1.7")
async def test_superseded_golden_samples_go_by_their_domain_s_rule_but_for_those_an_active_or_open_judgement_refers_to(
    kept: Kept,
) -> None:
    async def golden(name: str, domain: str) -> None:
        """Versions 1.0.0 and 1.1.0, both frozen, and 1.2.0 with the samples of today."""
        body = {"dataset_id": name, "domain": domain}
        assert (await kept.keeper.client.post("/v1/golden", json=body)).status_code == 201
        for number in range(3):
            line = json.dumps({"prompt": f"Which gate is {number}?", "expected_output": f"Gate {number}."})
            reply = await kept.keeper.client.post(f"/v1/golden/{name}/samples", content=line, headers=NDJSON)
            assert reply.status_code == 200, reply.text
            if number < 2:
                await kept.rows.execute(
                    "update golden_dataset set frozen_at = now(), sha256 = $2 where dataset_id = $1 and version = $3",
                    name,
                    "0" * 64,
                    reply.json()["version"],
                )

    async def judged(name: str, dataset: str, state: str) -> None:
        await kept.evaluation(name, "brief")
        await kept.rows.execute(
            "update evaluation set dataset_id = $2, version = '1.0.0', state = $3 where evaluation_id = $1",
            name,
            dataset,
            state,
        )

    for name, domain in (("bare", "brief"), ("served", "brief"), ("open", "brief"), ("ruleless", "shop")):
        await golden(name, domain)
    await judged("e4", "served", "scored")
    await judged("e5", "open", "running")
    await kept.rows.execute("insert into active_adapter (family, adapter_id, revision) values ('e4', 'e4-v1', 1)")
    listed = (await kept.collected(apply=False))["golden"]
    expected = {("bare", "1.0.0"), ("bare", "1.1.0"), ("served", "1.1.0"), ("open", "1.1.0")}
    assert {(one["dataset_id"], one["version"]) for one in listed} == expected
    assert (await kept.collected(apply=True))["golden"] == listed
    assert (await kept.collected(apply=False))["golden"] == []
    left = await kept.rows.fetch("select distinct dataset_id, version from golden_sample")
    assert {("bare", "1.2.0"), ("served", "1.0.0"), ("open", "1.0.0"), ("ruleless", "1.0.0")} <= set(map(tuple, left))
    assert not expected & set(map(tuple, left))
    reply = await kept.keeper.client.get("/v1/golden/bare/export", params={"version": "1.1.0"})
    assert (reply.status_code, "let go" in reply.json()["detail"]) == (410, True)
    assert (await kept.keeper.client.get("/v1/golden/bare", params={"version": "1.1.0"})).json()["sha256"] == "0" * 64
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await kept.rows.execute("delete from golden_sample where dataset_id = 'served' and version = '1.0.0'")


async def killed_at(kept: Kept, table: str, erasure: dict[str, str]) -> None:
    """Have the evaluator erase until it writes to a table, kill it there, and start it again."""
    holder = await asyncpg.connect(
        kept.keeper.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    await holder.execute(f"begin; lock table {table} in share mode")
    asked = asyncio.create_task(kept.keeper.client.post("/v1/golden-erasures", json=erasure))
    waits = "select exists (select from pg_locks where relation = $1::regclass and not granted)"
    await eventually(lambda: kept.rows.fetchval(waits, table))
    await kept.keeper.crash()
    await holder.execute("rollback")
    await holder.close()
    with pytest.raises(httpx.HTTPError):
        await asked
    await kept.keeper.start()


@pytest.mark.requirement("LA-1.7")
@pytest.mark.parametrize(
    "killed",
    [
        "",
        # Before anything; before what was judged; between that and the objects; with the objects gone, before the commit.
        *(
            pytest.param(one, marks=pytest.mark.heavy)
            for one in ("golden_sample", "sample_result", "judge_exchange", "forgotten_subject")
        ),
    ],
)
async def test_a_person_goes_from_all_golden_versions_and_from_what_was_judged_and_scores_and_digests_stay(
    kept: Kept, bus: Bus, killed: str
) -> None:
    name, dataset = f"anna-{secrets.token_hex(6)}", f"about-{secrets.token_hex(4)}"
    lines = [
        {"sample_id": "s1", "prompt": f"Where is {name}?", "expected_output": f"{name} is here.", "subject": name},
        {"sample_id": "s2", "prompt": "Which gate?", "expected_output": "The last."},
    ]

    async def send(*given: dict[str, str]) -> dict[str, Any]:
        body = "\n".join(json.dumps(one) for one in given)
        reply = await kept.keeper.client.post(f"/v1/golden/{dataset}/samples", content=body, headers=NDJSON)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    await kept.keeper.client.post("/v1/golden", json={"dataset_id": dataset, "domain": "shop"})
    await send(*lines)
    await kept.rows.execute(
        "update golden_dataset set frozen_at = now(), sha256 = $2 where dataset_id = $1", dataset, "1" * 64
    )
    report, request, answer = await kept.evaluation(name, "shop")
    await kept.rows.execute(
        "update evaluation set dataset_id = $2, version = '1.0.0', adapter_id = 'shop-x' where evaluation_id = $1",
        name,
        dataset,
    )
    verdicts = {"accuracy": {"score": 8.0, "reason": f"It names {name}."}}
    await kept.rows.execute(
        "update sample_result set answer = $2, why = $2, evidence = jsonb_build_object('x', $2::text), verdicts = $3"
        " where evaluation_id = $1 and sample_id = 's1'",
        name,
        f"{name} is here.",
        json.dumps(verdicts),
    )
    await kept.rows.execute("update human_label set note = $1 where evaluation_id = $1", name)

    erasure = {"erasure_id": f"er-{dataset}", "subject": name, "domain": "shop"}
    if killed:
        await killed_at(kept, killed, erasure)
    reply = await kept.keeper.client.post("/v1/golden-erasures", json=erasure)
    assert (reply.status_code, reply.json()["deleted"]) == (200, 2), reply.text
    tables = ("golden_sample", "sample_result", "human_label", "judge_exchange", "forgotten_subject")
    for table in tables:
        query = f"select count(*) from {table} t where replace(t::text, $2, '') like '%' || $1 || '%'"
        without_ids = f"({name},"  # the evaluation's own id
        assert await kept.rows.fetchval(query, name, without_ids) == 0, table
    assert [await kept.gone(one) for one in (report, request, answer)] == [True] * 3
    row = await kept.rows.fetchrow(
        "select overall, verdicts->'accuracy'->>'score' as score from sample_result"
        " where evaluation_id = $1 and sample_id = 's1'",
        name,
    )
    assert row is not None
    assert tuple(row) == (80, "8.0")
    versions = await kept.rows.fetch(
        "select version, sha256, erased_by, (select count(*) from golden_sample s where not erased and"
        " (s.dataset_id, s.version) = (g.dataset_id, g.version)) from golden_dataset g where dataset_id = $1"
        " order by ordinal",
        dataset,
    )
    assert [tuple(one) for one in versions] == [("1.0.0", "1" * 64, [erasure["erasure_id"]], 1), ("1.1.0", None, [], 1)]
    published = await eventually(lambda: bus.published(v1.SubjectErased, erasure_id=erasure["erasure_id"]))
    assert [(one.service, one.deleted) for one in published] == [("evaluator", 2)]
    # Nothing about the person is imported any more, and nothing is judged with what is left of the old version.
    again = await send(*lines)
    assert (again["forgotten"], again["total_samples"], again["changed"]) == (1, 1, False)
    with pytest.raises(EvaluationFailure, match="lost samples about people"):
        await freeze_for(kept.rows, "shop", f"{dataset}@1.0.0")
