"""Where a base model is placed, and the memory that it will take, worked out before it is loaded."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lora_core import base_model
from lora_core.device import find_device, free_memory, prepare
from lora_core.engine import ArrowEngine, Request
from lora_core.errors import AdapterNotFound, DeviceUnavailable, TooLittleMemory
from lora_core.memory_plan import MemoryPlan, memory_plan


@pytest.fixture
def folder(tmp_path, tiny_llama, tiny_tokenizer):
    tiny_llama.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    return tmp_path


def plan(folder, weights="float32", slots=4, max_rank=8, rows=2, positions=40) -> MemoryPlan:
    return memory_plan(folder, weights, slots=slots, max_rank=max_rank, rows=rows, positions=positions)


def test_auto_is_the_processor_where_there_is_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceUnavailable, match=r"'cuda'.*finds 0 GPUs"):
        find_device("cuda")


def test_a_gpu_is_found_by_number_and_int8_weights_stay_on_the_processor(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("auto", "int8") == torch.device("cpu")
    with pytest.raises(DeviceUnavailable, match=r"'cuda:2'.*finds 2 GPUs"):
        find_device("cuda:2")
    with pytest.raises(DeviceUnavailable, match="int8 weights, which processors alone"):
        find_device("cuda:1", "int8")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CUDA", "", "cpu\n"])
def test_another_name_is_refused_with_the_names_that_are_right(name) -> None:
    with pytest.raises(DeviceUnavailable, match="expected auto, cpu, cuda or cuda:N"):
        find_device(name)


@pytest.mark.parametrize(
    ("weights", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_plan_has_the_bytes_that_the_loaded_model_and_its_slots_take(folder, weights, dtype) -> None:
    model, tokenizer = base_model.load(folder, weights, "cpu")
    assert model.dtype == dtype
    planned = plan(folder, weights)
    assert planned.weights == sum(parameter.nbytes for parameter in model.parameters())
    bank = ArrowEngine(model, tokenizer, slots=4, max_rank=8)._bank
    assert planned.slots == max(memory.numbers.nbytes for memory in bank._memories.values())


@pytest.mark.parametrize("joining", [1, 2, 8])
def test_the_plan_has_room_for_what_the_cache_of_full_rows_takes(folder, joining: int) -> None:
    model, tokenizer = base_model.load(folder)
    requests = [Request([5] * 100, max_tokens=20, stop_ids=())] * 8
    batch = ArrowEngine(model, tokenizer, slots=1, max_rank=1).start(requests[:joining])
    planned = plan(folder, rows=8, positions=120).cache
    for step in range(19):
        if step and joining * (step + 1) <= 8:
            batch.add(requests[:joining])
        batch.step()
        taken = sum(buffer.nbytes for layer in batch._padded[0]._cache.layers for buffer in layer._buffers)
        assert taken <= planned
    assert taken > planned / 2, "no more than twice too careful"


def test_the_plan_has_the_second_copy_of_layers_that_are_packed(tmp_path) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(tmp_path)

    def planned(packed: bool, weights="float32") -> int:
        return memory_plan(tmp_path, weights, slots=1, max_rank=1, rows=1, positions=1, packed=packed).weights

    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert planned(True) - planned(False) == sum(layer.weight.nbytes for layer in layers)
    assert planned(True, "bfloat16") == planned(False, "bfloat16")


def test_int8_layers_are_planned_with_a_byte_for_each_weight(folder) -> None:
    floats, integers = plan(folder).weights, plan(folder, "int8").weights
    assert floats / 4 < integers < floats / 2
    assert plan(folder, "int8").slots == plan(folder).slots, "they compute in float32"


def test_too_little_memory_is_an_error_with_the_numbers() -> None:
    needed = MemoryPlan(14_800_000_000, 5_400_000_000, 1_200_000_000)
    needed.check(21_400_000_000, "cuda:0")
    with pytest.raises(TooLittleMemory) as raised:
        needed.check(21_399_999_999, "cuda:0")
    expected = "needs 21.40 GB (weights 14.80 GB, slots 5.40 GB, cache 1.20 GB) on cuda:0, where 21.40 GB are free"
    assert expected in str(raised.value)
    assert free_memory(torch.device("cpu")) is None


def test_a_folder_without_a_model_has_no_plan(tmp_path) -> None:
    with pytest.raises(AdapterNotFound):
        plan(tmp_path)


def test_a_gpu_is_set_up_without_the_attention_that_plans_every_new_length() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        prepare(torch.device("cpu"))
        assert torch.backends.cuda.cudnn_sdp_enabled(), "nothing is set for the processor"
        prepare(torch.device("cuda", 0))
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
