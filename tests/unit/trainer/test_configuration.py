"""Defaults, digests and checks of what a job trains with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet_events import v1
from lora_core.layer_shapes import LayerShapes
from services.trainer.training.configuration import Configuration, check, resolve
from services.trainer.training.targets import default_targets

pytestmark = pytest.mark.unit

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHAPES = LayerShapes(
    {
        f"model.layers.{layer}.{'self_attn' if name in PROJECTIONS[:4] else 'mlp'}.{name}": (64, 64)
        for layer in range(2)
        for name in PROJECTIONS
    }
)


def test_defaults_are_taken_for_what_is_not_asked_and_alpha_follows_the_rank() -> None:
    assert resolve("", None) == Configuration()
    assert resolve("", None, targets=default_targets(SHAPES)).target_modules == tuple(sorted(PROJECTIONS))
    requested = v1.Hyperparameters(target_modules=("q_proj",))
    assert resolve("", requested, targets=default_targets(SHAPES)).target_modules == ("q_proj",)
    assert resolve("", v1.Hyperparameters(rank=4)).alpha == 8
    assert resolve("", v1.Hyperparameters(rank=4, alpha=4)).alpha == 4


@given(
    st.builds(
        v1.Hyperparameters,
        rank=st.none() | st.integers(1, 256),
        learning_rate=st.none() | st.floats(1e-7, 0.1),
        batch_size=st.none() | st.integers(1, 1024),
        seed=st.none() | st.integers(0, 2**31 - 1),
    )
)
@pytest.mark.requirement("TP-1.2")
def test_what_is_asked_is_what_is_used(requested: v1.Hyperparameters) -> None:
    used = resolve("lora", requested).values()
    given_values = requested.model_dump(by_alias=False, exclude_none=True, exclude={"target_modules"})
    assert {name: used[name] for name in given_values} == given_values


def test_the_digest_does_not_depend_on_the_order_of_target_modules() -> None:
    one = resolve("", v1.Hyperparameters(target_modules=("v_proj", "q_proj")))
    other = resolve("", v1.Hyperparameters(target_modules=("q_proj", "v_proj")))
    assert one.sha256 == other.sha256
    assert one.sha256 != resolve("", v1.Hyperparameters(target_modules=("q_proj",))).sha256


@pytest.mark.requirement("TP-1.2")
def test_all_faults_are_named_together_with_what_would_be_right() -> None:
    requested = resolve("qlora", v1.Hyperparameters(rank=128, layers=3, target_modules=("k_proj", "lm_head", "ghost")))
    faults = {fault.field: fault for fault in check(requested, SHAPES, quantisation=False)}
    assert set(faults) == {
        "hyperparameters.target_modules", "hyperparameters.rank", "hyperparameters.layers", "method"
    }  # fmt: skip
    assert "at most 2" in faults["hyperparameters.layers"].expected
    assert faults["hyperparameters.target_modules"].value == ["ghost", "lm_head"]
    assert "LORAFLEET_MAX_RANK" in faults["hyperparameters.rank"].expected
    assert "bitsandbytes" in faults["method"].expected


def test_a_fitting_configuration_has_no_faults() -> None:
    assert check(resolve("", v1.Hyperparameters(rank=64)), SHAPES, quantisation=False) == ()
    assert check(resolve("", v1.Hyperparameters(rank=128)), SHAPES, quantisation=False, max_rank=128) == ()
    assert check(resolve("qlora", None), SHAPES, quantisation=True) == ()
    assert check(resolve("dora", None), SHAPES, quantisation=False) == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("rank", 257), ("learning_rate", 0.2), ("dropout", -0.1), ("epochs", 0), ("scheduler", "magic")],
)
@pytest.mark.requirement("TP-1.2")
def test_values_out_of_their_stated_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        v1.Hyperparameters.model_validate({field: value})
    assert len(refused.value.errors()) == 1
