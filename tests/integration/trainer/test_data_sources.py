"""Data sets built from every kind of source, on real servers; what is refused, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from typer.testing import CliRunner

from fleet_cli.app import root
from tests.integration.trainer.building import as_jsonl, build, built, card_of, refused, upload
from tests.integration.trainer.conftest import Bench, eventually
from tests.integration.trainer.document_store import DocumentStoreServer
from tests.integration.trainer.sourcing import CORPUS, ROWS
from tests.integration.trainer.sourcing import documents as documents
from tests.integration.trainer.sourcing import law_database as law_database
from tests.integration.trainer.sourcing import trainer as trainer

pytestmark = pytest.mark.integration


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.requirement("LA-6.1")
@pytest.mark.requirement("AS-3.1")
async def test_a_query_streams_documents_into_a_jsonl_data_set(bench: Bench) -> None:
    source = {"kind": "documents", "store": "law", "query": "Photovoltaik Baurecht"}
    dataset_id, records = await built(bench, source, licence="CC-BY-4.0")
    assert {(record.prompt_text, record.completions) for record in records} == {
        (one["title"], (one["text"],)) for one in CORPUS[:2]
    }
    assert {record.origin for record in records} == {"documents:law"}
    card = await card_of(bench, dataset_id)
    (gave,) = card["sources"]
    assert (gave["rows"], gave["records"], gave["unusable"]) == (3, 2, 1)
    assert gave["described"] | {"query": "Photovoltaik Baurecht", "store": "law", "documents": 3} == gave["described"]
    assert "blank" in gave["examples"][0]["reason"]
    assert (card["licence"], card["samples"]) == ("CC-BY-4.0", 2)

    asked = {**source, "columns": {"prompt": "Was gilt für {title}?"}, "limit": 1}
    _, (record,) = await built(bench, asked)
    assert record.prompt_text == "Was gilt für Photovoltaik auf Denkmälern?"


@pytest.mark.heavy
@pytest.mark.requirement("LA-6.1")
async def test_the_command_line_builds_by_query_and_exports_jsonl(
    bench: Bench, admin_token: str, tmp_path: Path
) -> None:
    def lorafleet(*arguments: str) -> Any:
        env = {
            "LORAFLEET_HOME": str(tmp_path),
            "LORAFLEET_TOKEN": admin_token,
            "LORAFLEET_TRAINER_URL": bench.trainer.url,
        }
        return CliRunner(env=env).invoke(root.typer, list(arguments), prog_name="lorafleet")

    async def run(*arguments: str) -> str:
        # In a thread: the document store answers in this one.
        done = await asyncio.to_thread(lorafleet, *arguments)
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    rows = tmp_path / "rows.csv"
    rows.write_bytes(as_csv(ROWS[:3]))
    query = ("--query", "Photovoltaik Baurecht", "--document-store", "law")
    made = json.loads(await run("data", "build", "solar", "--domain", bench.domain, *query, "--json"))
    await run("data", "export", made["dataset_id"], "-o", str(tmp_path / "solar.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "solar.jsonl").read_text().splitlines()]
    assert {line["completions"][0] for line in lines} == {one["text"] for one in CORPUS[:2]}

    await run("data", "build", "gates", "--domain", bench.domain, "--file", str(rows), "--licence", "MIT")
    listed = [one for one in json.loads(await run("data", "list", "--json")) if one["domain"] == bench.domain]
    assert [(one["name"], one["version"], one["samples"]) for one in listed] == [("gates", 1, 3), ("solar", 1, 2)]
    assert json.loads(await run("data", "card", listed[0]["dataset_id"]))["licence"] == "MIT"
    assert "exact_duplicates" in await run("data", "dropped", listed[0]["dataset_id"])

    failed = await asyncio.to_thread(
        lorafleet, "data", "build", "x", "--domain", bench.domain, "--query", "x", "--document-store", "nowhere"
    )
    assert failed.exit_code == 2, "wrong input, told before anything is built"
    assert "expected a name of LORAFLEET_DOCUMENT_STORES: law" in failed.stderr


async def test_a_document_stream_that_breaks_off_leaves_nothing(bench: Bench, documents: DocumentStoreServer) -> None:
    documents.cuts.append(1)
    (fault,) = await refused(bench, {"kind": "documents", "store": "law", "query": "Photovoltaik"})
    assert fault.startswith("sources.0.store: law (cut after 1 documents")
    unknown = {"kind": "documents", "store": "other", "query": "x"}
    (fault, also) = await refused(bench, unknown, {"kind": "sql", "database": "secret", "query": "delete from x"})
    assert also.startswith("sources.1.database: secret, expected a name of LORAFLEET_SQL_SOURCES")
    assert fault == "sources.0.store: other, expected a name of LORAFLEET_DOCUMENT_STORES: law"


async def test_rows_of_a_query_on_postgresql_become_records(bench: Bench) -> None:
    columns = {"prompt": "question", "completion": "answer", "rating": "stars", "rating_best": 10}
    query = "select * from law_questions where stars >= 8 order by id"
    _, records = await built(
        bench, {"kind": "sql", "database": "questions", "query": query, "columns": columns}, kind="rated"
    )
    assert len(records) == 1200 // 11 * 3
    assert {record.rating for record in records} == {4.0, 4.5, 5.0}
    assert {record.source_id for record in records} >= {"8", "9", "10"}


async def test_a_query_that_writes_or_is_more_than_one_is_refused(bench: Bench, law_database: str) -> None:
    for query, reason in (
        ("with gone as (delete from law_questions returning *) select * from gone", "read-only"),
        ("select 1; delete from law_questions", "cannot insert multiple commands"),
        ("delete from law_questions", "a single SELECT"),
        ("select question into copied from law_questions", "read-only"),
        ("select nonsense", "nonsense"),
    ):
        (fault,) = await refused(bench, {"kind": "sql", "database": "questions", "query": query})
        assert fault.startswith("sources.0.query: ")
        assert reason in fault
    connection = await asyncpg.connect(law_database)
    assert await connection.fetchval("select count(*) from law_questions") == 1200
    await connection.close()
    (fault,) = await refused(bench, {"kind": "sql", "database": "secret", "query": "select 1"})
    assert fault == "sources.0.database: secret, expected a name of LORAFLEET_SQL_SOURCES: questions"


@pytest.mark.heavy  # the message of a killed worker comes again after 20 s
async def test_a_build_whose_worker_is_killed_is_built_by_the_next(bench: Bench) -> None:
    rows = [{"prompt": f"prompt {n} " + "word " * 20, "completion": f"completion {n}"} for n in range(20_000)]
    source = await upload(bench, "many.jsonl", as_jsonl(rows))
    body = {"domain": bench.domain, "name": "many", "sources": [source]}
    build_id = (await bench.trainer.client.post("/v1/datasets", json=body)).json()["build_id"]

    async def state(*wanted: str) -> Any:
        try:
            found = (await bench.trainer.client.get(f"/v1/datasets/builds/{build_id}")).json()
        except httpx.HTTPError:
            return None  # it is being started again
        return found if found.get("state") in wanted else None

    await eventually(lambda: state("running"))
    await bench.trainer.kill()
    await bench.trainer.wait_ready()
    found = await eventually(lambda: state("succeeded", "failed"))
    assert (found["state"], found["attempts"]) == ("succeeded", 2)
    dataset = (await bench.trainer.client.get(f"/v1/datasets/{found['dataset_id']}")).json()
    assert dataset["samples"] == 20_000


async def test_records_are_read_in_parts_that_make_the_whole(bench: Bench) -> None:
    rows = [{"prompt": f"Question {n}?", "completion": f"Answer\u2028{n}."} for n in range(50)]
    ended = await build(bench, await upload(bench, "many.jsonl", as_jsonl(rows)))
    where = f"/v1/datasets/{ended['dataset_id']}/records"
    whole = (await bench.trainer.client.get(where)).content.split(b"\n")[:-1]

    async def part(**query: object) -> list[bytes]:
        answer = await bench.trainer.client.get(where, params=query)
        assert answer.status_code == 200, answer.text
        return answer.content.split(b"\n")[:-1]

    parts = [await part(offset=begin, limit=20) for begin in range(0, 60, 20)]
    assert [len(one) for one in parts] == [20, 20, 10]
    assert [line for one in parts for line in one] == whole
    assert await part(offset=48) == whole[48:]
    assert await part(offset=50, limit=5) == []
    assert (await bench.trainer.client.get(where, params={"limit": 0})).status_code == 422


async def test_a_stranger_s_token_reaches_nothing_of_a_domain(bench: Bench, mint: Callable[..., str]) -> None:
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    ended = await build(bench, source)
    async with httpx.AsyncClient(
        base_url=bench.trainer.url, headers={"Authorization": f"Bearer {mint(['train'], ['elsewhere'])}"}
    ) as stranger:
        for part in ("", "/card", "/records", "/dropped"):
            assert (await stranger.get(f"/v1/datasets/{ended['dataset_id']}{part}")).status_code == 404
        assert (await stranger.get(f"/v1/datasets/builds/{ended['build_id']}")).status_code == 404
        assert (await stranger.get("/v1/datasets/builds")).json() == {"builds": []}
        body = {"domain": bench.domain, "name": "x", "sources": [source]}
        assert (await stranger.post("/v1/datasets", json=body)).status_code == 403
        params = {"domain": bench.domain, "filename": "x.jsonl"}
        assert (await stranger.put("/v1/uploads", params=params, content=b"{}")).status_code == 403
        taken = {"domain": "elsewhere", "name": "x", "sources": [source]}
        build_id = (await stranger.post("/v1/datasets", json=taken)).json()["build_id"]

        async def failed() -> Any:
            found = (await stranger.get(f"/v1/datasets/builds/{build_id}")).json()
            return found if found["state"] == "failed" else None

        assert "the id of an upload of domain 'elsewhere'" in (await eventually(failed))["faults"][0]["expected"]


async def test_a_data_set_of_another_kind_than_the_objective_needs_is_refused_by_name(bench: Bench) -> None:
    answers, _ = await built(bench, await upload(bench, "gates.jsonl", as_jsonl(ROWS[:5])))
    for objective, fitting in (
        ("dpo", "preference or ranking or rated"),
        ("ranking", "ranking or preference or rated"),
    ):
        request = bench.request(datasetId=answers, objective=objective)
        refusal = (await bench.trainer.client.post("/v1/jobs", json=request)).json()
        assert (refusal["status"], refusal["field"]) == (422, "dataset_id")
        assert f"(completion)' is refused, expected a data set of kind {fitting}" in refusal["detail"]
