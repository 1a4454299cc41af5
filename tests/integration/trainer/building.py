"""Data sets built over HTTP, to their end."""

from __future__ import annotations

import json
from typing import Any

from services.trainer.datasets.records import Record
from tests.integration.trainer.conftest import Bench, eventually


async def build(bench: Bench, *sources: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    """The end of a build of these sources; one that was refused has no id."""
    body = {"domain": bench.domain, "name": "gates", "sources": list(sources), **recipe}
    answer = await bench.trainer.client.post("/v1/datasets", json=body)
    if answer.status_code == 422:
        return {"state": "refused", "faults": answer.json()["faults"]}
    assert answer.status_code == 202, answer.text
    build_id = answer.json()["build_id"]

    async def ended() -> Any:
        found = (await bench.trainer.client.get(f"/v1/datasets/builds/{build_id}")).json()
        return found if found["state"] in ("succeeded", "failed") else None

    return dict(await eventually(ended))


async def built(bench: Bench, *sources: dict[str, Any], **recipe: Any) -> tuple[str, list[Record]]:
    """Id and records of a data set that can be built, as HTTP gives them."""
    ended = await build(bench, *sources, **recipe)
    assert ended["state"] == "succeeded", ended["faults"]
    answer = await bench.trainer.client.get(f"/v1/datasets/{ended['dataset_id']}/records")
    assert answer.status_code == 200, answer.text
    return ended["dataset_id"], [Record.of_values(json.loads(line)) for line in answer.text.splitlines()]


async def refused(bench: Bench, *sources: dict[str, Any], **recipe: Any) -> list[str]:
    """The faults of a build that is refused at once, or ends and leaves nothing."""
    ended = await build(bench, *sources, **recipe)
    assert ended["state"] in ("refused", "failed")
    assert ended.get("dataset_id") is None
    listed = (await bench.trainer.client.get("/v1/datasets", params={"limit": 1000})).json()["datasets"]
    assert not [one for one in listed if one["domain"] == bench.domain]
    return [f"{fault['field']}: {fault['value']}, expected {fault['expected']}" for fault in ended["faults"]]


async def card_of(bench: Bench, dataset_id: str) -> dict[str, Any]:
    return dict((await bench.trainer.client.get(f"/v1/datasets/{dataset_id}/card")).json())


async def upload(bench: Bench, filename: str, content: bytes) -> dict[str, Any]:
    """The source of an uploaded file."""
    params = {"domain": bench.domain, "filename": filename}
    answer = await bench.trainer.client.put("/v1/uploads", params=params, content=content)
    assert answer.status_code == 201, answer.text
    return {"kind": "upload", "upload_id": answer.json()["upload_id"]}


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
