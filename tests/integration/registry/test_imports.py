"""`POST /v1/adapters/import`: files in every form, archives, the fleet's bucket, a hub; and what may not be reached."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from minio import Minio
from safetensors.numpy import save_file

from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET
from fleet_events import v1
from lora_core import LoRACard, LoRAFormat
from lora_core.base_model import linear_shapes
from lora_core.interop import to_gguf, to_peft
from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry import hub_server
from tests.integration.registry.conftest import Upstream, card
from tests.integration.registry.hub_server import HubServer, Repository
from tests.integration.registry.test_http import files_of

pytestmark = pytest.mark.integration

TOKEN = "hf_of_the_caller"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with hub_server.running() as server:
        yield server


@pytest.fixture(scope="module")
async def registry(
    run_service: RunService, base_model: Path, hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    """A registry that may ask the hub and its storage, and has a token of its own that it must never send."""
    async with run_service(
        "registry",
        LORAFLEET_BASE_MODEL=str(base_model),
        LORAFLEET_IMPORT_PRIVATE_HOSTS=json.dumps(
            [hub.url.removeprefix("http://"), hub.storage.removeprefix("http://")]
        ),
        HF_ENDPOINT=hub.url,
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path_factory.mktemp("hf")),
        HF_TOKEN="hf_of_the_operator",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def made(base_model: Path) -> LoRACard:
    return card(linear_shapes(base_model))


@pytest.fixture(scope="module")
def peft(made: LoRACard, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a PEFT folder."""
    folder = tmp_path_factory.mktemp("peft")
    to_peft(made, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


async def fetch(registry: RunningService, **fields: object) -> httpx.Response:
    return await registry.client.post("/v1/adapters/import", json=fields)


async def assert_holds(made: LoRACard, found: dict[str, Any], upstream: Upstream, folder: Path) -> None:
    """The artifact and the checkpoint of a version have the card's numbers."""
    again = LoRAFormat.load(await upstream.blobs.fetch(v1.Blob(**found["artifact"]), folder / "back"))
    assert again.weights.keys() == made.weights.keys()
    for module, own in made.weights.items():
        np.testing.assert_array_equal(again.weights[module].a, own.a)
        np.testing.assert_array_equal(again.weights[module].b, own.b)
        assert again.scaling(module) == made.scaling(module)


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


async def test_a_repository_of_a_hub_is_imported_at_the_commit_that_its_revision_is(
    registry: RunningService, hub: HubServer, upstream: Upstream, made: LoRACard, peft: dict[str, bytes], domain: str,
    tmp_path: Path, base_model: Path,
) -> None:  # fmt: skip
    to_gguf(made, tmp_path / "a.gguf", base_model)
    main = {**peft, "README.md": b"x", "model.safetensors": bytes(4000)}
    tagged = {"gguf/a.gguf": (tmp_path / "a.gguf").read_bytes(), "gguf/notes.txt": b"x", "old.bin": b"pickle"}
    hub.repositories["someone/adapter"] = Repository({"main": main, "v1": tagged})
    hub.requests.clear()
    answer = await fetch(registry, domain=domain, source="someone/adapter")
    assert answer.status_code == 201, answer.text
    origin = answer.json()["origin"]
    assert origin["source"] == f"hf://someone/adapter@{hub_server.sha(main)}"
    assert {one["name"] for one in origin["files"]} == set(peft)
    await assert_holds(made, answer.json(), upstream, tmp_path)
    assert not [one for one in hub.requests if one[2]], "a token was sent that the caller did not give"
    assert not [
        one
        for one in hub.requests
        if "README" in one[1] or "model.safetensors" in one[1].removesuffix("adapter_model.safetensors")
    ]
    for revision in ("v1", hub_server.sha(tagged)):
        for path in ("gguf", "gguf/a.gguf"):
            answer = await fetch(registry, domain=domain, source=f"hf://someone/adapter@{revision}:{path}")
            assert answer.status_code == 201, answer.text
            assert answer.json()["origin"]["form"] == "gguf"
            await assert_holds(made, answer.json(), upstream, tmp_path)
    for source, why in {
        "someone/adapter@v1": "old.bin of someone/adapter may hold pickled code",
        "someone/adapter@v9": "the hub has no someone/adapter@v9",
        "someone/nothing": "the hub has no someone/nothing",
        "someone/adapter:none": "someone/adapter:none holds no adapter",
    }.items():
        answer = await fetch(registry, domain=domain, source=source)
        assert (answer.status_code, answer.json()["field"]) == (422, "source"), answer.text
        assert why in answer.json()["detail"]


async def test_a_private_repository_is_read_with_the_callers_token_which_goes_nowhere_else(
    registry: RunningService, hub: HubServer, peft: dict[str, bytes], domain: str
) -> None:
    hub.repositories["acme/secret"] = Repository({"main": peft}, token=TOKEN)
    hub.repositories["acme/gated"] = Repository({"main": peft}, gated=True)
    for fields in ({}, {"hub_token": "hf_of_the_operator"}):
        answer = await fetch(registry, domain=domain, source="acme/secret", **fields)
        assert (answer.status_code, answer.json()["field"]) == (422, "source")
    assert "then send hub_token" in (await fetch(registry, domain=domain, source="acme/gated")).json()["detail"]
    hub.requests.clear()
    answer = await fetch(registry, domain=domain, source="acme/secret", hub_token=TOKEN)
    assert answer.status_code == 201, answer.text
    assert TOKEN not in answer.text
    assert {credential for _, path, credential in hub.requests if path.startswith("/lfs/")} == {""}
    assert {credential for _, path, credential in hub.requests if not path.startswith("/lfs/")} == {f"Bearer {TOKEN}"}


async def test_a_hub_that_sends_the_registry_elsewhere_or_other_bytes_is_not_followed(
    registry: RunningService, hub: HubServer, peft: dict[str, bytes], domain: str
) -> None:
    hub.repositories["someone/adapter"] = Repository({"main": peft})
    try:
        for place in ("http://127.0.0.1:1", "http://169.254.169.254", registry.url, "file:///etc"):
            hub.redirect_to = place
            answer = await fetch(registry, domain=domain, source="someone/adapter")
            assert (answer.status_code, answer.json()["field"]) in ((422, "source"), (502, "source")), answer.text
            assert place.startswith("file") or "is not allowed" in answer.json()["detail"]
        hub.redirect_to, hub.spoiled = "", bytes(len(peft["adapter_model.safetensors"]))
        answer = await fetch(registry, domain=domain, source="someone/adapter")
        assert answer.status_code == 502
        assert "the hub lists" in answer.json()["detail"]
    finally:
        hub.redirect_to, hub.spoiled = "", b""


async def test_a_repository_over_the_size_bound_is_refused_before_it_is_fetched(
    run_service: RunService, base_model: Path, hub: HubServer, domain: str
) -> None:
    hub.repositories["someone/large"] = Repository({"main": {"a.gguf": bytes(3 << 20)}})
    private = json.dumps([hub.url.removeprefix("http://"), hub.storage.removeprefix("http://")])
    async with run_service(
        "registry",
        LORAFLEET_BASE_MODEL=str(base_model),
        LORAFLEET_IMPORT_PRIVATE_HOSTS=private,
        LORAFLEET_MAX_ARTIFACT_BYTES=str(2 << 20),
        LORAFLEET_MAX_UPLOADED_BYTES="1000",
        HF_ENDPOINT=hub.url,
        HF_HUB_OFFLINE="0",
    ) as small:
        hub.requests.clear()
        answer = await fetch(small, domain=domain, source="someone/large")
        assert (answer.status_code, answer.json()["field"]) == (413, "source")
        assert [path for _, path, _ in hub.requests if "resolve" in path or "lfs" in path] == []
        hub.repositories["someone/small"] = Repository({"main": {"a.gguf": bytes(1 << 20)}})
        answer = await fetch(small, domain=domain, source="someone/small")
        assert (answer.status_code, answer.json()["field"]) == (413, "domain")


async def test_without_named_hosts_no_hub_is_asked_and_offline_only_the_cache_is_read(
    run_service: RunService, base_model: Path, hub: HubServer, peft: dict[str, bytes], domain: str, tmp_path: Path
) -> None:
    hub.repositories["someone/adapter"] = Repository({"main": peft})
    async with run_service(
        "registry", LORAFLEET_BASE_MODEL=str(base_model), HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0"
    ) as closed:
        hub.requests.clear()
        answer = await fetch(closed, domain=domain, source="someone/adapter")
        assert answer.status_code == 422
        assert "LORAFLEET_IMPORT_HOSTS" in answer.json()["detail"]
        assert hub.requests == []
    commit = "c" * 40
    snapshot = tmp_path / "hub/models--someone--cached/snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/models--someone--cached/refs").mkdir()
    (tmp_path / "hub/models--someone--cached/refs/main").write_text(commit)
    for name, content in peft.items():
        (snapshot / name).write_bytes(content)
    async with run_service(
        "registry", LORAFLEET_BASE_MODEL=str(base_model), HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)
    ) as offline:
        answer = await fetch(offline, domain=domain, source="someone/cached")
        assert answer.status_code == 201, answer.text
        assert answer.json()["origin"]["source"] == f"hf://someone/cached@{commit}"
        answer = await fetch(offline, domain=domain, source="someone/adapter")
        assert "not in the registry's cache" in answer.json()["detail"]
        assert hub.requests == []


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
