"""Imports from a hub: which repositories, with whose token, from which hosts, and how much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_core import LoRACard
from lora_core.interop import to_gguf
from tests.conftest import RunningService, RunService
from tests.integration.registry import hub_server
from tests.integration.registry.conftest import Upstream
from tests.integration.registry.hub_server import HubServer, Repository
from tests.integration.registry.importing import TOKEN, assert_holds, fetch
from tests.integration.registry.importing import hub as hub
from tests.integration.registry.importing import made as made
from tests.integration.registry.importing import peft as peft
from tests.integration.registry.importing import registry as registry

pytestmark = pytest.mark.integration


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
