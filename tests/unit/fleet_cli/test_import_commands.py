"""Uploads, imports and golden data sets: what is sent of a folder or a file, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fleet_cli import recorded
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted
from tests.unit.fleet_cli.test_commands import ADAPTER, ADAPTER_ID


def test_an_import_that_waits_for_a_human_shows_the_way_on(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "a.gguf").write_bytes(b"x")
    service.answer("POST /v1/adapters/import", recorded.waiting_adapter(), 201)
    shown = against("adapters", "import", str(tmp_path / "a.gguf"), "--domain", "tax", "--description", "tax")
    assert f"lorafleet adapters approve {ADAPTER_ID}" in shown.stderr
    assert "--description" not in shown.stderr


def test_a_peft_folder_is_uploaded_with_its_fields_and_never_a_pickle(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    refused = against("adapters", "register", str(tmp_path), "--domain", "tax")
    assert refused.exit_code == 2
    assert "adapter_model.safetensors" in refused.stderr
    (tmp_path / "adapter_model.safetensors").write_bytes(b"tensors")
    service.answer("POST /v1/adapters", ADAPTER, 201)
    assert against("adapters", "register", str(tmp_path), "--domain", "tax", "--version", "1.0.0").exit_code == 0
    body = service.requests[-1].body
    for part in (b'name="domain"', b'name="version"', b'filename="adapter_model.safetensors"', b"tensors"):
        assert part in body
    assert b"pickle" not in body


@pytest.mark.parametrize(
    "weights", ["adapter_model.safetensors", "adapters.safetensors", "a.gguf", "a.arrow", "a.tar.gz"]
)
def test_an_import_sends_the_files_of_the_form_that_it_finds_and_no_others(
    against: Lorafleet, service: Scripted, tmp_path: Path, weights: str
) -> None:
    (tmp_path / "given").mkdir()
    for name in ("adapter_config.json", "optimizer.pt", weights):
        (tmp_path / "given" / name).write_bytes(f"content of {name}".encode())
    service.answer("POST /v1/adapters/import", ADAPTER, 201)
    place = tmp_path / "given" / weights if weights == "a.tar.gz" else tmp_path / "given"
    done = against("adapters", "import", str(place), "--domain", "tax", "--method", "dora")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"imported {ADAPTER['adapter_id']}: {ADAPTER['status']}\n"
    assert "without --description, `auto` routes to it by" in done.stderr
    body = service.requests[-1].body
    assert f"content of {weights}".encode() in body
    assert (b"content of adapter_config.json" in body) == weights.endswith("safetensors")
    assert b"optimizer" not in body


def test_golden_samples_of_one_domain_do_not_go_into_anothers_data_set(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text('{"prompt": "One?", "expected_output": "Yes."}\n')
    service.answer("GET /v1/golden/tax-golden", {"dataset_id": "tax-golden", "domain": "law"})
    done = against("golden", "import", "tax-golden", str(file), "--domain", "tax")
    assert done.exit_code == 2
    assert "--domain: 'tax-golden' belongs to domain 'law', not to 'tax'" in done.stderr
    assert [one.method for one in service.requests] == ["GET"]


@pytest.mark.parametrize("command", ["register", "import"])
def test_an_adapter_is_sent_only_with_a_golden_data_set_of_its_domain(
    against: Lorafleet, service: Scripted, tmp_path: Path, command: str
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    arguments = ("adapters", command, str(tmp_path), "--domain", "tax", "--golden-dataset", "tax-golden")
    unknown = against(*arguments)
    assert unknown.exit_code == 2
    assert "--golden-dataset: 'tax-golden' does not exist" in unknown.stderr
    service.answer("GET /v1/golden/tax-golden", {"dataset_id": "tax-golden", "domain": "law"})
    foreign = against(*arguments)
    assert foreign.exit_code == 2
    assert "'tax-golden' belongs to domain 'law', not to 'tax'" in foreign.stderr
    assert {one.method for one in service.requests} == {"GET"}
    service.answer("GET /v1/golden/tax-golden", {"dataset_id": "tax-golden", "domain": "tax"})
    service.answer("POST /v1/adapters" + ("/import" if command == "import" else ""), ADAPTER, 201)
    done = against(*arguments)
    assert done.exit_code == 0, done.stderr
    assert b'name="golden_dataset_id"' in service.requests[-1].body


def test_an_import_from_elsewhere_names_its_source_and_a_token_from_a_file(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    service.answer("POST /v1/adapters/import", ADAPTER, 201)
    (tmp_path / "token").write_text("hf_x\n")
    for source in ("someone/adapter@v1", "s3://lorafleet/registry/imports/tax/a"):
        options = ("--domain", "tax", "--base-model", "small", "--hub-token-file", str(tmp_path / "token"))
        assert against("adapters", "import", source, *options).exit_code == 0
        assert service.requests[-1].json == {
            "domain": "tax",
            "base_model": "small",
            "hub_token": "hf_x",
            "source": source,
        }


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["adapter_model.bin"], "adapter_model.bin may hold pickled code"),
        (["a.gguf", "b.gguf"], "name one of a.gguf, b.gguf"),
        (["adapter_config.json"], "contains no adapter; expected a folder with adapter_config.json"),
    ],
)
def test_a_folder_that_is_no_adapter_is_not_sent(
    against: Lorafleet, service: Scripted, tmp_path: Path, names: list[str], why: str
) -> None:
    (tmp_path / "given").mkdir()
    for name in names:
        (tmp_path / "given" / name).write_bytes(b"x")
    refused = against("adapters", "import", str(tmp_path / "given"), "--domain", "tax")
    assert (refused.exit_code, service.requests) == (2, [])
    assert why in refused.stderr
    assert "nowhere does not exist here" in against("adapters", "import", "nowhere", "--domain", "tax").stderr
