"""What an upload says of itself by its files: the method, the base model, and what else lies in the folder."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from starlette.datastructures import FormData, UploadFile
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from fleet_events import v1
from fleet_kit.auth import Caller
from fleet_kit.errors import Problem
from services.registry.base_models import BaseModels, BaseModelUnavailable, WrongBaseModel
from services.registry.family import Submission
from services.registry.peft_config import PeftConfig
from services.registry.upload import UploadFields, _save_files, _submit

pytestmark = pytest.mark.unit

CALLER = Caller("user", frozenset({"adapters:write"}), frozenset({"*"}))


class Stored:
    """Says that a blob is stored."""

    async def put(self, kind: str, _data: object, _content_type: str = "") -> v1.Blob:
        return v1.Blob(uri=f"s3://b/registry/{kind}/x", sha256="0" * 64, bytes=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with tied embeddings."""
    folder = tmp_path_factory.mktemp("base") / "Shop-Model-1B"
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(folder)
    return folder


def made(base: Path, work: Path, named: str | None = None, **config: Any) -> Path:
    """A PEFT folder in `work`, made on `base` and said to be made on `named`."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    given = {"target_modules": ["q_proj", "v_proj"], "r": 4, **config}
    get_peft_model(model, LoraConfig(init_lora_weights=False, **given)).save_pretrained(work / "peft")
    if named is not None:
        path = work / "peft" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": named}))
    return work


async def submit(work: Path, models: BaseModels, **fields: Any) -> Submission:
    service = SimpleNamespace(parts=SimpleNamespace(base_models=models), blobs=Stored())
    return await _submit(UploadFields(domain="shop", **fields), work, CALLER, service)  # type: ignore[arg-type]


@pytest.mark.requirement("AM-1.1", "LA-1.3")
@pytest.mark.parametrize(
    ("config", "method", "others"),
    [
        ({"use_dora": True}, "dora", ("lora", "qlora", "rslora")),
        ({"use_rslora": True}, "rslora", ("lora", "dora", "qlora")),
        ({}, "lora", ("dora", "rslora")),
    ],
)
async def test_the_method_is_the_folders_and_another_is_refused_in_its_field(
    base: Path, tmp_path: Path, config: dict[str, Any], method: str, others: tuple[str, ...]
) -> None:
    work, models = made(base, tmp_path, **config), BaseModels({"Shop-Model-1B": base})
    submission = await submit(work, models)
    assert (submission.method.value, submission.family) == (method, f"shop-{method}")
    for other in others:
        with pytest.raises(Problem) as refused:
            await submit(work, models, method=other)
        assert (refused.value.status, refused.value.field) == (422, "method")
    if method == "lora":
        assert (await submit(work, models, method="qlora")).method.value == "qlora"


@pytest.mark.requirement("AM-4.1")
async def test_an_adapter_of_another_base_model_is_refused_until_the_caller_names_one(
    base: Path, tmp_path: Path
) -> None:
    models = BaseModels({"Shop-Model-1B": base, "Other-2B": base})
    work = made(base, tmp_path, named="another-org/Another-Model-1B")
    with pytest.raises(Problem, match="base_model=Shop-Model-1B or Other-2B") as refused:
        await submit(work, models)
    assert (refused.value.status, refused.value.field) == (422, "base_model")
    assert "another-org/Another-Model-1B" in str(refused.value.detail)
    assert (await submit(work, models, base_model="Shop-Model-1B")).base_model.name == "Shop-Model-1B"
    work = made(base, tmp_path, named="somebody/Other-2B-bnb-4bit")
    assert (await submit(work, models)).base_model.name == "Other-2B"


@pytest.mark.parametrize(
    ("named", "same"),
    [
        ("", True),
        ("/models/anything", True),
        ("./merged", True),
        ("C:\\models\\x", True),
        ("/root/.cache/huggingface/hub/models--org--Shop-Model-1B/snapshots/abc", True),
        ("~/.cache/huggingface/hub/models--org--Shop-Model-1B/snapshots/abc/", True),
        ("models--Shop-Model-1B/snapshots/abc", True),
        ("/root/.cache/huggingface/hub/models--meta-llama--Llama-3/snapshots/abc", False),
        ("C:\\hub\\models--meta-llama--Llama-3\\snapshots\\abc", False),
        ("org/Shop-Model-1B", True),
        ("unsloth/shop-model-1b-unsloth-bnb-4bit", True),
        ("org/Shop-Model-1B-GPTQ-Int4", True),
        ("org/Shop-Model-1B-AWQ", True),
        ("org/Shop-Model-1B-Instruct", False),
        ("org/Shop-Model-2B", False),
        ("Another-Model", False),
    ],
)
def test_names_of_one_model_are_told_from_those_of_others(tmp_path: Path, named: str, same: bool) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named}))
    assert PeftConfig.read(tmp_path).is_of("Shop-Model-1B") is same


@pytest.mark.requirement("AM-1.1")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("targets", [["q_proj", "embed_tokens"], ["q_proj", "lm_head"]])
async def test_adapted_embeddings_are_accepted_with_the_copies_that_peft_saves(
    base: Path, tmp_path: Path, targets: list[str]
) -> None:
    submission = await submit(made(base, tmp_path, target_modules=targets), BaseModels({"Shop-Model-1B": base}))
    assert submission.artifact.target_modules == tuple(sorted(targets))


async def test_a_rank_that_no_slot_holds_is_refused_and_one_above_a_narrow_layer_is_not(
    base: Path, tmp_path: Path
) -> None:
    wide = made(base, tmp_path, r=40)
    assert (await submit(wide, BaseModels({"base": base}), base_model="base")).artifact.rank == 40
    with pytest.raises(Problem, match="at most 16, what inference's slots hold"):
        await submit(wide, BaseModels({"base": base}, max_rank=16), base_model="base")


async def test_a_base_model_that_cannot_be_served_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobodys"}')
    (tmp_path / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(WrongBaseModel, match="nobodys"):
        await BaseModels({"odd": tmp_path}).get("odd")


def _broken(fault: str, folder: Path) -> None:
    match fault:
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "truncated weights":
            (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:40])
        case "no folder":
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no weights", r"its folder lacks config.json or \*.safetensors"),
        ("truncated weights", "model.safetensors: "),
        ("no folder", r"its folder lacks config.json or \*.safetensors"),
    ],
)
async def test_a_base_model_that_the_registry_cannot_read_is_no_fault_of_the_upload(
    base: Path, tmp_path: Path, fault: str, reason: str
) -> None:
    folder = shutil.copytree(base, tmp_path / "Shop-Model-1B")
    work, models = made(base, tmp_path), BaseModels({"Shop-Model-1B": folder})
    await models.ready()
    _broken(fault, folder)
    with pytest.raises(Problem, match=f"base model 'Shop-Model-1B' is unavailable: {reason}") as refused:
        await submit(work, models, base_model="Shop-Model-1B")
    assert (refused.value.status, refused.value.field) == (503, "base_model")
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(BaseModelUnavailable):
        await models.ready()
    shutil.copytree(base, folder, dirs_exist_ok=True)
    assert (await submit(work, models, base_model="Shop-Model-1B")).base_model.name == "Shop-Model-1B"
    await models.ready()


@pytest.mark.requirement("AM-1.1")
async def test_everything_but_the_adapters_two_files_is_passed_over(base: Path, tmp_path: Path) -> None:
    peft = made(base, tmp_path) / "peft"
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth", "tokenizer.json", "README.md"):
        (peft / name).write_bytes(b"not read")
    await _save_files(form(peft), tmp_path / "received")
    assert sorted(file.name for file in (tmp_path / "received").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    (peft / "adapter_model.safetensors").rename(peft / "adapter_model.bin")
    with pytest.raises(Problem, match="pickled code"):
        await _save_files(form(peft), tmp_path / "refused")


def form(folder: Path) -> FormData:
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    return FormData([("files", UploadFile(io.BytesIO(file.read_bytes()), filename=file.name)) for file in files])
