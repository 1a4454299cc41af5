"""Exports that cannot be made, or not be validated, are refused before anything is trained."""

from __future__ import annotations

import pytest

from fleet_events import v1
from services.trainer.jobs.export_checks import check_exports, check_split
from services.trainer.training.configuration import Configuration

pytestmark = pytest.mark.unit

BLOB = v1.Blob(uri="s3://lorafleet/trainer/data", sha256="a" * 64, bytes=1)


def requesting(*kinds: str, dataset_id: str = "") -> v1.TrainingRequested:
    return v1.TrainingRequested(domain="shop", exports=kinds, dataset_id=dataset_id)


@pytest.mark.requirement("AS-2.3")
def test_exports_need_something_to_be_validated_on() -> None:
    (fault,) = check_exports(requesting("int8"), Configuration(), gguf=True)
    assert (fault.field, fault.value) == ("exports", ["int8"])
    assert "validation_part" in fault.expected
    assert check_exports(requesting("int8"), Configuration(validation_part=0.1), gguf=True) == ()
    assert check_exports(requesting(), Configuration(), gguf=False) == ()


@pytest.mark.requirement("AS-2.3")
def test_a_named_data_set_is_asked_for_its_own_split() -> None:
    request = requesting("int4", dataset_id="d1")
    bare = v1.Dataset(dataset_id="d1", blob=BLOB, samples=10)
    assert check_exports(request, Configuration(), gguf=True) == ()
    (fault,) = check_split(request, Configuration(), bare)
    assert fault.field == "exports"
    assert check_split(request, Configuration(validation_part=0.1), bare) == ()
    assert check_split(request, Configuration(), bare.model_copy(update={"validation_samples": 2})) == ()
    assert check_split(requesting(dataset_id="d1"), Configuration(), bare) == ()


@pytest.mark.requirement("AS-2.2")
def test_gguf_is_refused_for_what_llama_cpp_does_not_know() -> None:
    dora = Configuration(method="dora", validation_part=0.1)
    (fault,) = check_exports(requesting("gguf", "int8"), dora, gguf=True)
    assert "dora" in fault.expected
    (fault,) = check_exports(requesting("gguf"), Configuration(validation_part=0.1), gguf=False)
    assert "int8 or int4" in fault.expected
    assert check_exports(requesting("int8"), dora, gguf=False) == ()


@pytest.mark.requirement("AS-2.3")
def test_a_level_whose_blocks_fit_no_target_is_refused_before_it_is_trained() -> None:
    shapes = {"model.layers.0.self_attn.q_proj": (64, 576), "model.layers.0.mlp.down_proj": (64, 1536)}
    narrow = Configuration(target_modules=("q_proj",), validation_part=0.1)
    levels = ("gguf", "gguf-q8_0", "gguf-q6_k", "gguf-q4_k_m")
    faults = check_exports(requesting(*levels), narrow, gguf=True, shapes=shapes)
    assert [(fault.field, fault.value) for fault in faults] == [("exports", "gguf-q6_k"), ("exports", "gguf-q4_k_m")]
    assert "gguf-q8_0: no target module's input is a multiple of 256" in faults[0].expected
    wide = Configuration(target_modules=("q_proj", "down_proj"), validation_part=0.1)
    assert check_exports(requesting(*levels), wide, gguf=True, shapes=shapes) == ()
    assert len(check_exports(requesting(*levels), wide, gguf=False, shapes=shapes)) == len(levels)


@pytest.mark.requirement("AS-2.3")
def test_the_contract_has_the_levels_that_files_are_written_at_and_no_others() -> None:
    assert requesting("gguf-q4_k_m", "gguf-q8_0").exports == ("gguf-q4_k_m", "gguf-q8_0")
    with pytest.raises(ValueError, match="exports"):
        requesting("gguf-q2_k")
