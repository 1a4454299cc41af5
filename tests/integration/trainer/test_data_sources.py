"""Data sets built from every kind of source, on real servers; what is refused, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fleet_cli.app import root
from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_events import v1
from fleet_events.topology import STREAM
from services.trainer.datasets.dataset_file import dataset_id_of
from services.trainer.datasets.records import Kind
from tests.conftest import RunningService, RunService
from tests.integration.trainer.building import as_jsonl, build, built, card_of, refused, upload
from tests.integration.trainer.conftest import Bench, eventually
from tests.integration.trainer.document_store import Document, DocumentStoreServer, running
from tests.integration.trainer.foreign_database import foreign_database

pytestmark = pytest.mark.integration

ROWS = [
    {"prompt": f"What is gate {n}?", "completion": f"Gate {n}, it is said, opens; at dusk.", "rating": n % 6}
    for n in range(40)
]
CORPUS: list[Document] = [
    {"id": 1, "title": "Photovoltaik auf Denkmälern", "text": "Nach dem Baurecht genehmigungspflichtig."},
    {"id": 2, "title": "Photovoltaik auf Scheunen", "text": "Das Baurecht stellt sie frei."},
    {"id": 3, "title": "Gartenhäuser", "text": "Das Baurecht schweigt."},
    {"id": 4, "title": "Photovoltaik, Baurecht", "text": "   "},
]


@pytest.fixture(scope="module")
async def documents() -> AsyncIterator[DocumentStoreServer]:
    async with running(DocumentStoreServer(CORPUS)) as server:
        yield server


@pytest.fixture(scope="module")
async def law_database(servers: Fleet) -> AsyncIterator[str]:
    """A table that the recipes' role may read and write, so that only the read-only transaction protects it."""
    async with foreign_database(servers, "law") as url:
        connection = await asyncpg.connect(url)
        await connection.execute("create table law_questions (id int, question text, answer text, stars float)")
        await connection.executemany(
            "insert into law_questions values ($1, $2, $3, $4)",
            [(n, f"Question {n}?", f"Answer {n}.", n % 11) for n in range(1200)],
        )
        await connection.close()
        yield url


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    documents: DocumentStoreServer,
    law_database: str,
) -> AsyncIterator[RunningService]:
    """A trainer that knows a document store, a database and a folder of data sets."""
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("trainer")),
        LORAFLEET_THREADS="1",
        LORAFLEET_LEASE_SECONDS="4",
        LORAFLEET_SOURCE_BYTES=str(64 * 1024 * 1024),
        LORAFLEET_DOCUMENT_STORES=json.dumps(
            {"law": {"url": documents.url}, "other": {"url": "http://127.0.0.1:9/", "domains": ["else"]}}
        ),
        LORAFLEET_SQL_SOURCES=json.dumps({"questions": law_database}),
        LORAFLEET_DATASET_FOLDERS=str(tmp_path_factory.mktemp("folders")),
    ) as started:
        yield started


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


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


@pytest.mark.requirement("AS-3.1")
async def test_one_content_is_one_data_set_in_whatever_format_and_order_it_is_uploaded(bench: Bench) -> None:
    jsonl = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    table = await upload(bench, "gates.csv", as_csv(ROWS[::-1]))
    parquet = await upload(bench, "gates.parquet", as_parquet(ROWS[20:] + ROWS[:20] + ROWS[:3]))
    recipe: dict[str, Any] = {"validation_part": 0.25, "seed": 3}
    first, records = await built(bench, jsonl, **recipe)
    assert first == dataset_id_of(bench.domain, Kind.COMPLETION, records)
    assert (await built(bench, table, **recipe))[0] == (await built(bench, parquet, **recipe))[0] == first

    versions = [
        (one["version"], one["dataset_id"])
        for one in (await bench.trainer.client.get("/v1/datasets", params={"name": "gates"})).json()["datasets"]
        if one["domain"] == bench.domain
    ]
    assert versions == [(3, first), (2, first), (1, first)]  # three cards of one content
    assert (await built(bench, parquet, **recipe))[0] == first
    assert (await build(bench, parquet, **recipe))["version"] == 3  # the same card too

    validating = [record for record in records if record.split == "validation"]
    assert 0 < len(validating) < 20
    answer = await bench.trainer.client.get(f"/v1/datasets/{first}/records", params={"split": "validation"})
    assert len(answer.text.splitlines()) == len(validating)
    events = [
        one
        for one in await bench.upstream.all(STREAM)
        if isinstance(one, v1.DatasetFrozen) and one.domain == bench.domain
    ]
    assert [(one.name, one.version, one.dataset.validation_samples) for one in events] == [
        ("gates", version, len(validating)) for version in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("kind", "row", "completions"),
    [
        ("preference", {"prompt": "p", "chosen": "good", "rejected": "bad"}, ("good", "bad")),
        ("ranking", {"prompt": "p", "completions": ["best", "good", "bad"]}, ("best", "good", "bad")),
        ("rated", {"prompt": "p", "completion": "c", "rating": 4}, ("c",)),
        (
            "conversation",
            {"messages": [{"role": r, "content": r[0]} for r in ("system", "user", "assistant", "user", "assistant")]},
            ("a",),
        ),
    ],
)
async def test_every_kind_of_record_is_read(
    bench: Bench, kind: str, row: dict[str, Any], completions: tuple[str, ...]
) -> None:
    _, (record,) = await built(bench, await upload(bench, "one.jsonl", as_jsonl([row])), kind=kind)
    assert (record.kind, record.completions) == (kind, completions)


async def test_every_bad_row_of_an_upload_is_named_and_nothing_is_built(bench: Bench) -> None:
    rows = [*ROWS, {"prompt": "no answer"}, {"prompt": " ", "completion": "blank"}]
    faults = await refused(bench, await upload(bench, "gates.jsonl", as_jsonl(rows)))
    assert faults == [
        "sources.0: gates.jsonl row 41: completion: no column 'completion', expected one of prompt",
        "sources.0: gates.jsonl row 42: prompt: blank, expected text",
    ]
    (fault,) = await refused(bench, await upload(bench, "gates.parquet", b"not parquet at all"))
    assert fault.startswith("sources.0: gates.parquet: ")
    answer = await bench.trainer.client.put(
        "/v1/uploads", params={"domain": bench.domain, "filename": "gates.pickle"}, content=b"x"
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "filename")


async def test_objects_below_the_domain_s_own_prefix_are_read_and_no_others(bench: Bench, servers: Fleet) -> None:
    client = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    for name, content in (("a.jsonl", as_jsonl(ROWS[:20])), ("b.csv", as_csv(ROWS[15:])), ("c.txt", b"no data")):
        client.put_object(BUCKET, f"trainer/uploads/{bench.domain}/gates/{name}", io.BytesIO(content), len(content))
    dataset_id, records = await built(bench, {"kind": "s3", "prefix": "gates/"})
    assert {record.prompt_text for record in records} == {row["prompt"] for row in ROWS}
    described = (await card_of(bench, dataset_id))["sources"][0]["described"]
    assert [one["name"] for one in described["objects"]] == ["gates/a.jsonl", "gates/b.csv"]


async def test_prefixes_outside_the_domain_are_refused(bench: Bench) -> None:
    for prefix in ("../other/", "/datasets", "a/../../x", "s3://lorafleet/trainer/datasets"):
        (fault,) = await refused(bench, {"kind": "s3", "prefix": prefix})
        assert f"a prefix relative to trainer/uploads/{bench.domain}/" in fault
    (fault,) = await refused(bench, {"kind": "s3", "prefix": "nothing/"})
    assert "the prefix of .jsonl, .ndjson, .csv or .parquet objects" in fault


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


async def test_a_folder_that_datasets_saved_is_read_and_paths_that_lead_out_are_refused(bench: Bench) -> None:
    from datasets import Dataset, DatasetDict

    root = Path(bench.trainer.env["LORAFLEET_DATASET_FOLDERS"])
    parts = {"train": Dataset.from_list(ROWS[:30]), "test": Dataset.from_list(ROWS[30:])}
    DatasetDict(parts).save_to_disk(root / bench.domain / "gates")
    Dataset.from_list(ROWS).save_to_disk(root / "other" / "secret")
    _, records = await built(bench, {"kind": "folder", "path": "gates"})
    assert {record.prompt_text for record in records} == {row["prompt"] for row in ROWS}

    other = await upload(bench, "x.jsonl", as_jsonl(ROWS))  # a domain that has a data set would hide what is left
    assert other
    (root / bench.domain / "link").symlink_to(root / "other" / "secret")
    for path in ("../other/secret", str(root / "other" / "secret"), "link", ".", "nowhere"):
        ended = await build(bench, {"kind": "folder", "path": path})
        assert ended["state"] == "refused"
        assert ended["faults"][0]["field"] == "sources.0.path"


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
