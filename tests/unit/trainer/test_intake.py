"""NDJSON uploads and training requests, before anything is stored."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events import v1
from fleet_kit.errors import Problem
from lora_core.layer_shapes import LayerShapes
from services.trainer.datasets.dataset import Sample
from services.trainer.datasets.sample_upload import read_samples
from services.trainer.jobs.request import read_request
from services.trainer.jobs.request_checks import RequestChecks

pytestmark = pytest.mark.unit

CHECKS = RequestChecks(
    v1.BaseModel(name="base", revision="0" * 64), LayerShapes({"m.q_proj": (64, 64)}), quantisation=False
)


async def read(body: bytes, *, domain: str | None = "shop", cut: int = 7) -> list[Sample]:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), cut):
            yield body[at : at + cut]

    return [sample async for batch in read_samples(chunks(), domain, size=3) for sample in batch]


@given(st.integers(1, 40), st.integers(0, 10))
async def test_lines_are_read_whole_however_the_body_is_cut(cut: int, count: int) -> None:
    lines = [{"prompt": f"p{index}", "completion": "ü\n" * index + "c"} for index in range(count)]
    body = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    assert [(s.prompt, s.completion) for s in await read(body, cut=cut)] == [
        (line["prompt"], line["completion"]) for line in lines
    ]


async def test_every_bad_line_is_named_with_its_number() -> None:
    good = json.dumps({"prompt": "p", "completion": "c"})
    body = "\n".join([good, "{", json.dumps({"prompt": "p"}), good, json.dumps({"prompt": "p", "completion": " "})])
    with pytest.raises(Problem) as refused:
        await read(body.encode())
    assert refused.value.status == 422
    faults: Any = refused.value.extensions["faults"]
    assert [fault["line"] for fault in faults] == [2, 3, 5]
    assert "completion" in faults[1]["message"]


@pytest.mark.parametrize("line", [{"promt": "p"}, {"rating": 6}, {"rating": float("nan")}, {"domain": "No Domain"}])
async def test_misspelled_and_out_of_range_fields_are_refused(line: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        await read(json.dumps({"prompt": "p", "completion": "c", **line}).encode())


@pytest.mark.parametrize("value", ["a\x00b", "\ud800"])
async def test_text_that_no_database_stores_is_refused_with_its_line(value: str) -> None:
    good = json.dumps({"prompt": "p", "completion": "c"})
    for field in ("prompt", "completion", "id"):
        bad = json.dumps({"prompt": "p", "completion": "c", field: value})
        with pytest.raises(Problem, match="line 2: ") as refused:
            await read(f"{good}\n{bad}".encode())
        assert refused.value.status == 422


async def test_a_line_without_domain_needs_one_in_the_query() -> None:
    with pytest.raises(Problem, match="domain"):
        await read(b'{"prompt": "p", "completion": "c"}', domain=None)


async def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(Problem) as refused:
        await read(b"x" * 2_000_000, cut=65536)
    assert refused.value.status == 413


def faults_of(body: dict[str, Any] | bytes) -> dict[str, str]:
    """Field → what would be right, of the fields and of the whole."""
    reading = read_request(body if isinstance(body, bytes) else json.dumps(body).encode())
    whole = CHECKS.faults_of(reading.request)[1] if reading.request else ()
    return {fault.field: fault.expected for fault in (*reading.faults, *whole)}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"text"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert faults_of(body) == {"body": "a JSON object"}


@pytest.mark.requirement("TP-1.2")
def test_faults_of_fields_and_of_the_whole_are_told_together() -> None:
    body = {"rank": 100, "batchSize": "many", "targetModules": ["q_proj"], "beta": 0.2, "processes": 3}
    fields = set(faults_of({"domain": "UPPER", "method": "qlora", "hyperparameters": body}))
    whole = {"hyperparameters.rank", "hyperparameters.beta", "hyperparameters.processes", "method"}
    assert fields == {"domain", "hyperparameters.batchSize"} | whole


def test_a_misspelled_field_is_refused_and_the_right_ones_are_named() -> None:
    named = faults_of(
        {"domain": "shop", "hyperparameters": {"targetModules": ["q_proj"], "learning_rat": 0.1}, "querry": "x"}
    )
    assert set(named) == {"querry", "hyperparameters.learning_rat"}
    assert "learning_rate" in named["hyperparameters.learning_rat"]


def test_a_field_of_a_newer_writer_is_no_fault_on_the_bus() -> None:
    reading = read_request(b'{"domain": "shop", "colour": "red", "hyperparameters": {"rank": 0}}', newer=True)
    assert [fault.field for fault in reading.faults] == ["hyperparameters.rank"]
    assert reading.request == v1.TrainingRequested(domain="shop", hyperparameters=v1.Hyperparameters())


def test_another_base_model_is_refused_with_the_one_there_is() -> None:
    body = {"domain": "shop", "baseModel": "x", "hyperparameters": {"targetModules": ["q_proj"]}}
    assert faults_of(body)["base_model"].startswith("base,")
