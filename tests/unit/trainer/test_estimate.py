"""The estimate of memory: beside measured runs, and what it says where something does not fit."""

import re
from dataclasses import replace

import pytest

from services.trainer.jobs.memory_estimate import ModelSize, faults, memory
from services.trainer.training.configuration import Configuration

pytestmark = [pytest.mark.unit, pytest.mark.requirement("TP-1.2")]

PARTS = {"q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576)}
PARTS |= {"gate_proj": (1536, 576), "up_proj": (1536, 576), "down_proj": (576, 1536)}
CONFIG = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
SHAPES = {f"layers.{layer}.{name}": shape for layer in range(30) for name, shape in PARTS.items()}
SMOLLM = ModelSize.of(CONFIG, SHAPES)
assert SMOLLM is not None
MIB = 2**20


@pytest.mark.parametrize(
    ("method", "rank", "targets", "tokens", "measured", "again"),
    [
        ("lora", 16, tuple(PARTS), 212, 1759, False),
        ("lora", 16, tuple(PARTS), 936, 4102, False),
        ("lora", 8, ("q_proj", "v_proj"), 936, 3232, False),
        ("dora", 16, tuple(PARTS), 936, 5322, False),
        ("qlora", 16, tuple(PARTS), 936, 3981, False),
        ("lora", 16, tuple(PARTS), 3932, 11153, False),
        ("lora", 16, tuple(PARTS), 935, 2379, True),
        ("lora", 16, tuple(PARTS), 3717, 4962, True),
    ],
)
def test_the_estimate_is_near_the_highest_memory_of_smollm2_135m_on_a_cpu(
    method: str, rank: int, targets: tuple[str, ...], tokens: int, measured: int, again: bool
) -> None:
    """`measured`: MiB resident at the highest (ru_maxrss) of two steps over so many tokens each; `again`: checkpointing."""
    assert SMOLLM
    configuration = Configuration(method=method, rank=rank, target_modules=targets, gradient_checkpointing=again)
    estimated = memory(configuration, SMOLLM, tokens) / MIB
    assert measured / 1.2 < estimated < measured * 1.2


def test_parameters_are_those_of_the_model_and_other_architectures_are_left_alone() -> None:
    assert SMOLLM
    assert SMOLLM.linear + SMOLLM.embedding == pytest.approx(134_515_008, rel=0.001)
    assert ModelSize.of({"n_layer": 12, "n_embd": 768}, {}) is None


def test_more_of_anything_takes_more_memory() -> None:
    assert SMOLLM
    usual = Configuration(target_modules=("q_proj",))
    known = memory(usual, SMOLLM, 2048)
    for change in ({"rank": 64}, {"target_modules": ("q_proj", "v_proj")}, {"dropout": 0.1}, {"processes": 2}):
        assert memory(replace(usual, **change), SMOLLM, 2048) > known, change
    assert memory(usual, SMOLLM, 4096) > known
    assert memory(replace(usual, method="qlora"), SMOLLM, 2048) < known
    assert memory(replace(usual, layers=10), SMOLLM, 2048) < known == memory(replace(usual, layers=30), SMOLLM, 2048)


def test_what_does_not_fit_is_refused_with_batches_that_would() -> None:
    assert SMOLLM
    configuration = Configuration(batch_size=64, max_length=1024)
    available = 8 * 2**30
    (fault,) = faults(configuration, SMOLLM, available)
    assert (fault.field, fault.value) == ("hyperparameters.batch_size", 64)
    found = re.match(r"at most micro_batch_size (\d+) or max_length (\d+): ", fault.expected)
    assert found, fault.expected
    micro, length = map(int, found.groups())
    for fitting in (replace(configuration, micro_batch_size=micro), replace(configuration, max_length=length)):
        assert faults(fitting, SMOLLM, available) == ()
    (again,) = faults(replace(configuration, micro_batch_size=micro + 1), SMOLLM, available)
    assert (again.field, again.value) == ("hyperparameters.micro_batch_size", micro + 1)
    assert faults(replace(configuration, max_length=length + 1), SMOLLM, available)
    assert "8.0 GiB are available" in fault.expected
    assert faults(configuration, SMOLLM, 0) == (), "an unknown amount is no bound"


def test_checkpointing_is_proposed_where_the_batch_fits_with_it() -> None:
    assert SMOLLM
    configuration = Configuration(batch_size=16, max_length=512)
    kept = replace(configuration, gradient_checkpointing=True)
    available = memory(kept, SMOLLM, 16 * 512)
    (fault,) = faults(configuration, SMOLLM, available)
    assert "or the same with gradient_checkpointing: " in fault.expected
    assert faults(kept, SMOLLM, available) == ()
    (fault,) = faults(configuration, SMOLLM, available - 1)
    assert "gradient_checkpointing" not in fault.expected
    (fault,) = faults(kept, SMOLLM, available - 1)
    assert "gradient_checkpointing" not in fault.expected


def test_where_no_longest_record_fits_for_every_process_a_shorter_one_is_proposed() -> None:
    assert SMOLLM
    configuration = Configuration(batch_size=4096, max_length=8192, processes=4)
    available = memory(configuration, SMOLLM, 3 * 8192)  # three longest records would fit: too few for four processes
    (fault,) = faults(configuration, SMOLLM, available)
    found = re.match(r"at most micro_batch_size 1 with max_length (\d+): ", fault.expected)
    assert found, fault.expected
    fitting = replace(configuration, micro_batch_size=1, max_length=int(found[1]))
    assert faults(fitting, SMOLLM, available) == ()
    assert fitting.max_length == 3 * 8192 // 4


def test_a_machine_that_is_too_small_for_the_model_is_named_as_the_cause() -> None:
    assert SMOLLM
    (fault,) = faults(Configuration(), SMOLLM, 2**30)
    assert "too little for this base model" in fault.expected
