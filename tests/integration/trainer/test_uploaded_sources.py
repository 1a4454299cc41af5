"""Files that were uploaded or lie below the domain's prefix: every format, every kind, every bad row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_events import v1
from fleet_events.topology import STREAM
from services.trainer.datasets.dataset_file import dataset_id_of
from services.trainer.datasets.records import Kind
from tests.integration.trainer.building import as_jsonl, build, built, card_of, refused, upload
from tests.integration.trainer.conftest import Bench, eventually
from tests.integration.trainer.sourcing import ROWS
from tests.integration.trainer.sourcing import documents as documents
from tests.integration.trainer.sourcing import law_database as law_database
from tests.integration.trainer.sourcing import trainer as trainer
from tests.integration.trainer.test_data_sources import as_csv

pytestmark = pytest.mark.integration


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.mark.heavy
@pytest.mark.requirement("AS-3.1")
async def test_one_content_is_one_data_set_in_every_format_and_order_of_upload(bench: Bench) -> None:
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


@pytest.mark.requirement("LA-1.7")
async def test_objects_of_others_stay_when_a_person_is_forgotten_and_the_answer_names_them_and_builds_filter_them(
    bench: Bench, servers: Fleet
) -> None:
    client = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    content = as_jsonl([{**row, "subject": "anna" if at < 15 else "bert"} for at, row in enumerate(ROWS)])
    name = f"trainer/uploads/{bench.domain}/gates/a.jsonl"
    client.put_object(BUCKET, name, io.BytesIO(content), len(content))
    source = {"kind": "s3", "prefix": "gates/"}
    held, _ = await built(bench, source)
    asked = await bench.trainer.client.post("/v1/erasures", json={"subject": "anna", "domain": bench.domain})
    kept = [f"kept in your bucket: s3://{BUCKET}/trainer/uploads/{bench.domain}/gates/, filtered from builds"]
    assert asked.json()["kept_elsewhere"] == kept

    async def gone() -> bool:
        return (await bench.trainer.client.get(f"/v1/datasets/{held}/records")).status_code == 410

    await eventually(gone)
    assert client.get_object(BUCKET, name).data == content
    again, left = await built(bench, source)
    assert {one.prompt_text for one in left} == {row["prompt"] for row in ROWS[15:]}
    assert (await card_of(bench, again))["sources"][0]["forgotten"] == 15
    shown = (await bench.trainer.client.get(f"/v1/erasures/{asked.json()['erasure_id']}")).json()
    assert shown["kept_elsewhere"] == kept


async def test_prefixes_outside_the_domain_are_refused(bench: Bench) -> None:
    for prefix in ("../other/", "/datasets", "a/../../x", "s3://lorafleet/trainer/datasets"):
        (fault,) = await refused(bench, {"kind": "s3", "prefix": prefix})
        assert f"a prefix relative to trainer/uploads/{bench.domain}/" in fault
    (fault,) = await refused(bench, {"kind": "s3", "prefix": "nothing/"})
    assert "the prefix of .jsonl, .ndjson, .csv or .parquet objects" in fault


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
