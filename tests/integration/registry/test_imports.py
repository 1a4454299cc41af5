"""`POST /v1/adapters/import`: files in every form, archives, the fleet's bucket; and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from minio import Minio
from safetensors.numpy import save_file

from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET
from lora_core import LoRACard, LoRAFormat
from lora_core.interop import to_gguf, to_peft
from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import Upstream
from tests.integration.registry.hub_server import HubServer, Repository
from tests.integration.registry.importing import assert_holds, fetch
from tests.integration.registry.importing import hub as hub
from tests.integration.registry.importing import made as made
from tests.integration.registry.importing import peft as peft
from tests.integration.registry.importing import registry as registry
from tests.integration.registry.uploads import files_of

pytestmark = pytest.mark.integration


def write_mlx(made: LoRACard, folder: Path) -> None:
    """As mlx-lm writes it: matrices transposed, `scale` in place of alpha."""
    folder.mkdir()
    arrays = {f"{module}.lora_a": np.ascontiguousarray(own.a.T) for module, own in made.weights.items()}
    arrays |= {f"{module}.lora_b": np.ascontiguousarray(own.b.T) for module, own in made.weights.items()}
    save_file(arrays, folder / "adapters.safetensors")
    parameters = {"rank": made.rank, "scale": made.alpha / made.rank, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "lora_parameters": parameters, "num_layers": 30}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def tar_of(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"adapter/{name}")
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return written.getvalue()


@pytest.mark.requirement("AS-2.1")
@pytest.mark.parametrize("form", ["peft", "mlx", "gguf", "arrow"])
async def test_files_of_every_form_are_registered_with_their_digests_as_origin(
    registry: RunningService,
    upstream: Upstream,
    made: LoRACard,
    domain: str,
    tmp_path: Path,
    base_model: Path,
    form: str,
) -> None:
    folder = tmp_path / "given"
    match form:
        case "peft":
            to_peft(made, folder)
        case "mlx":
            write_mlx(made, folder)
        case "gguf":
            to_gguf(made, folder / "adapter.gguf", base_model)
        case _:
            LoRAFormat.save(made, folder / "adapter.arrow")
    answer = await registry.client.post("/v1/adapters/import", data={"domain": domain}, files=files_of(folder))
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["adapter_id"] == f"{domain}-lora-v1.0.0"
    assert answer.headers["location"] == f"/v1/adapters/{found['adapter_id']}"
    origin = found["origin"]
    assert (origin["form"], origin["source"]) == (form, "upload")
    assert {one["name"]: one["sha256"] for one in origin["files"]} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }
    await assert_holds(made, found, upstream, tmp_path)
    chain = (await registry.client.get(f"/v1/adapters/{found['adapter_id']}/provenance")).json()
    assert chain["origin"] == origin
    manifest = (await registry.client.get(f"/v1/adapters/{found['adapter_id']}/manifest")).json()
    assert manifest["file_size"] == found["artifact"]["bytes"]


async def test_an_archive_is_registered_as_its_folder_would_be(
    registry: RunningService, upstream: Upstream, made: LoRACard, peft: dict[str, bytes], domain: str, tmp_path: Path
) -> None:
    sent = [("files", ("adapter.tar.gz", tar_of(peft)))]
    answer = await registry.client.post("/v1/adapters/import", data={"domain": domain, "version": "2.0.0"}, files=sent)
    assert answer.status_code == 201, answer.text
    await assert_holds(made, answer.json(), upstream, tmp_path)
    assert [one["name"] for one in answer.json()["origin"]["files"]] == [f"adapter/{name}" for name in sorted(peft)]
    again = await registry.client.post("/v1/adapters/import", data={"domain": domain, "version": "2.0.0"}, files=sent)
    assert (again.status_code, again.json()["next_version"]) == (409, "2.0.1")


async def test_the_method_is_the_adapters_own(
    registry: RunningService, domain: str, tmp_path: Path, made: LoRACard
) -> None:
    from dataclasses import replace

    to_peft(replace(made, rslora=True), tmp_path / "given")
    answer = await registry.client.post(
        "/v1/adapters/import", data={"domain": domain}, files=files_of(tmp_path / "given")
    )
    assert answer.json()["method"] == "rslora", answer.text
    for method in ("lora", "dora"):
        answer = await registry.client.post(
            "/v1/adapters/import", data={"domain": domain, "method": method}, files=files_of(tmp_path / "given")
        )
        assert (answer.status_code, answer.json()["field"]) == (422, "method")
        assert "the adapter is rslora" in answer.json()["detail"]


async def test_objects_of_the_domains_own_place_are_imported_and_no_others(
    registry: RunningService,
    servers: Fleet,
    upstream: Upstream,
    made: LoRACard,
    peft: dict[str, bytes],
    domain: str,
    tmp_path: Path,
) -> None:
    key = servers.credentials.s3["admin"]
    endpoint = servers.info.s3_endpoint.removeprefix("http://")
    store = Minio(endpoint, access_key=key.access, secret_key=key.secret, secure=False, region="us-east-1")

    def put(key: str, content: bytes) -> None:
        store.put_object(BUCKET, key, io.BytesIO(content), len(content))

    for name, content in {**peft, "README.md": b"x"}.items():
        await asyncio.to_thread(put, f"registry/imports/{domain}/first/{name}", content)
    await asyncio.to_thread(put, f"registry/imports/{domain}/packed.tar.gz", tar_of(peft))
    for place in ("first", "first/", "packed.tar.gz"):
        source = f"s3://{BUCKET}/registry/imports/{domain}/{place}"
        answer = await fetch(registry, domain=domain, source=source)
        assert answer.status_code == 201, answer.text
        await assert_holds(made, answer.json(), upstream, tmp_path)
        assert answer.json()["origin"]["source"] == source
    for other in (f"{BUCKET}/registry/imports/{domain}x/first", f"{BUCKET}/trainer/checkpoints", "other/registry/imports/x",
                  f"{BUCKET}/registry/imports/{domain}/../{domain}/first"):  # fmt: skip
        answer = await fetch(registry, domain=domain, source=f"s3://{other}")
        assert (answer.status_code, answer.json()["field"]) == (422, "source")
        assert f"expected s3://{BUCKET}/registry/imports/{domain}/" in answer.json()["detail"]
    nothing = await fetch(registry, domain=domain, source=f"s3://{BUCKET}/registry/imports/{domain}/fir")
    assert "no adapter below" in nothing.json()["detail"]


async def test_an_import_is_held_to_the_callers_domains_and_scopes(
    registry: RunningService, hub: HubServer, peft: dict[str, bytes], domain: str, mint: Mint
) -> None:
    hub.repositories["someone/adapter"] = Repository({"main": peft})
    hub.requests.clear()
    for token, status in ((mint(["adapters:write"], ["other"]), 403), (mint(["adapters:read"], [domain]), 403)):
        answer = await registry.client.post(
            "/v1/adapters/import",
            json={"domain": domain, "source": "someone/adapter"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == status
    assert hub.requests == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "domain"),
        ({"domain": "Shop"}, "domain"),
        ({"domain": "shop"}, "source"),
        ({"domain": "shop", "source": "https://example.org/x"}, "source"),
        ({"domain": "shop", "source": "a/b", "base_model": "none"}, "base_model.name"),
        ({"domain": "shop", "source": "a/b", "method": "full"}, "method"),
        ({"domain": "shop", "source": "a/b", "more": 1}, "more"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    registry: RunningService, fields: dict[str, Any], field: str
) -> None:
    answer = await fetch(registry, **fields)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


async def test_files_that_are_no_adapter_are_refused_by_name(
    registry: RunningService, domain: str, tmp_path: Path
) -> None:
    for name, why in {
        "adapter_model.bin": "pickled code",
        "README.md": "no adapter among the files sent (README.md)",
    }.items():
        answer = await registry.client.post(
            "/v1/adapters/import", data={"domain": domain}, files=[("files", (name, b"x"))]
        )
        assert (answer.status_code, answer.json()["field"]) == (422, "files")
        assert why in answer.json()["detail"]
