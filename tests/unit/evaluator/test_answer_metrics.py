"""Metrics beside the judge's scores: the built-in ones, plug-ins by entry point, commands with limits, and their means."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluator.answer_metrics import text_metrics
from services.evaluator.answer_metrics.command import CommandSettings, MetricFault, measure
from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.answer_metrics.metrics import BUILT_IN, AnswerMetrics, UnknownMetric
from services.evaluator.answer_metrics.summary import summarise_metrics
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.openai_client import OpenAIClient

SAMPLE = GoldenSample("s", "How long?", "Goods may stay at most 45 days.")
NOBODY: OpenAIClient = None  # type: ignore[assignment] # asked by embedding_similarity alone


@pytest.mark.parametrize(
    ("name", "answer", "value"),
    [
        ("exact_match", "goods may stay at most 45 days", 1),
        ("exact_match", "Goods may stay 45 days.", 0),
        ("token_f1", "Goods may stay at most 45 days.", 1),
        ("token_f1", "days 45", 2 * 2 / (2 + 7)),
        ("token_f1", "Ten weeks", 0),
        ("rouge_l", "days 45", 2 * 1 / (2 + 7)),
        ("rouge_l", "Goods stay 45 days", 2 * 4 / (4 + 7)),
        ("chrf", "Goods may stay at most 45 days.", 1),
        ("json_validity", "anything", None),
    ],
)
def test_the_built_in_metrics_have_their_published_values(name: str, answer: str, value: float | None) -> None:
    assert BUILT_IN[name](SAMPLE, answer) == (None if value is None else pytest.approx(value))


def test_json_is_asked_for_where_the_expected_output_is_json() -> None:
    wanted = GoldenSample("s", "As JSON", '{"days": 45}')
    given = {'{"days": 12}': 1.0, "[1, 2": 0.0, '```json\n{"days": 45}\n```': 0.0, '{"a": NaN}': 0.0}
    assert {answer: text_metrics.json_validity(wanted, answer) for answer in given} == given


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_every_metric_stays_between_0_and_1_for_any_text(answer: str, expected: str) -> None:
    for metric in BUILT_IN.values():
        value = metric(GoldenSample("s", "?", expected), answer)
        assert value is None or 0 <= value <= 1


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with three metrics, installed as pip leaves it."""
    (tmp_path / "house_metrics.py").write_text(
        "def politeness(sample, answer):\n    return 1.0 if 'please' in answer else 0.0\n"
        "def broken(sample, answer):\n    raise RuntimeError('no idea')\n"
        "def nosy(sample, answer):\n    import socket\n    socket.socket()\n    return 1.0\n"
        "def endless(sample, answer):\n    return bytes(2 << 30) and 1.0\n"
        "def percent(sample, answer):\n    return 88.0\n"
    )
    info = tmp_path / "house_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-metrics\nVersion: 1.0\n")
    names = ("politeness", "broken", "percent", "nosy", "endless")
    entries = [f"{name} = house_metrics:{name}" for name in names] + ["gone = house_metrics:nothing"]
    (info / "entry_points.txt").write_text("\n".join(["[lorafleet.metrics]", *entries, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("house_metrics", None)


async def test_a_plug_in_measures_and_one_that_fails_costs_its_own_value_alone(plugged: None) -> None:
    metrics = AnswerMetrics(["politeness", "broken", "percent", "token_f1", "json_validity"], {}, "")
    found = await metrics.measure(SAMPLE, "45 days, please", NOBODY, "shop-lora-v1.0.0")
    assert found["politeness"] == Measured(1.0)
    assert (found["broken"].value, "no idea" in found["broken"].fault) == (None, True)
    assert found["percent"].fault == "gave 88.0; expected a number from 0 to 1, or None"
    assert found["token_f1"].value is not None
    assert "json_validity" not in found  # it does not apply


async def test_a_confined_plug_in_measures_the_same_and_gets_no_network(plugged: None) -> None:
    names = ["politeness", "broken", "nosy", "endless"]
    metrics = AnswerMetrics(names, {}, "", confined=names)
    assert "house_metrics" not in sys.modules  # nothing of it runs in the evaluator
    found = await metrics.measure(SAMPLE, "45 days, please", NOBODY, "shop-lora-v1.0.0")
    assert found["politeness"] == Measured(1.0)
    assert found["broken"].fault == "RuntimeError('no idea')"
    assert found["nosy"].fault == "PermissionError(1, 'Operation not permitted')"
    assert found["endless"].fault == "MemoryError()"


def test_what_cannot_be_confined_is_refused_at_the_start(plugged: None) -> None:
    with pytest.raises(UnknownMetric, match="'politeness' cannot be confined on this machine: no Landlock"):
        AnswerMetrics(["politeness"], {}, "", confined=["politeness"], unavailable="no Landlock")
    with pytest.raises(UnknownMetric, match="'slow' cannot be confined"):
        AnswerMetrics([], {"slow": CommandSettings(command=("true",), confined=True)}, "", unavailable="no Landlock")
    with pytest.raises(UnknownMetric, match="confined_metrics: 'token_f1' is no plug-in"):
        AnswerMetrics(["token_f1"], {}, "", confined=["token_f1"])


def test_a_metric_that_is_not_there_is_refused_at_the_start_with_those_that_are(plugged: None) -> None:
    with pytest.raises(UnknownMetric, match=r"'politness' is no metric; known: .*politeness"):
        AnswerMetrics(["politness"], {}, "")
    with pytest.raises(UnknownMetric, match=r"plug-in 'gone'.*cannot be loaded"):
        AnswerMetrics(["gone"], {}, "")
    with pytest.raises(UnknownMetric, match="'token_f1' is a metric already"):
        AnswerMetrics(["token_f1"], {"token_f1": CommandSettings(command=("true",))}, "")


def python(code: str, **limits: object) -> CommandSettings:
    return CommandSettings.model_validate({"command": [sys.executable, "-c", code], **limits})


async def test_a_command_reads_sample_and_answer_and_prints_a_number() -> None:
    code = "import json, sys; read = json.load(sys.stdin); print(float(read['answer'] in read['sample']['prompt']))"
    assert await measure(python(code), SAMPLE, "long") == 1.0
    assert await measure(python(code), SAMPLE, "short") == 0.0


async def test_a_confined_command_measures_and_starts_nothing() -> None:
    limits = {"confined": True, "reads": [sys.prefix, sys.base_prefix]}
    code = "import json, sys; read = json.load(sys.stdin); print(float(read['answer'] == 'long'))"
    assert await measure(python(code, **limits), SAMPLE, "long") == 1.0
    with pytest.raises(MetricFault, match="status 1"):
        await measure(python("import os; os.fork(); print(1)", **limits), SAMPLE, "long")
    assert await measure(python("import os; os.fork() and print(1)"), SAMPLE, "long") == 1  # not confined: it may


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(60)", "no value within 1.5 s"),
        ("import os, time; os.fork(); time.sleep(60)", "no value within 1.5 s"),
        ("print('x' * 100_000)", "more than 64000 bytes"),
        ("print('good')", "expected a number"),
        ("raise SystemExit(3)", "status 3"),
        ("b'x' * (900 << 20); print(1)", "status 1"),
    ],
)
async def test_a_command_that_hangs_or_takes_too_much_is_ended_and_says_why(code: str, why: str) -> None:
    with pytest.raises(MetricFault, match=why):
        await measure(python(code, seconds=1.5), SAMPLE, "an answer")


async def test_a_command_gets_none_of_the_services_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_S3_SECRET_KEY", "secret")
    code = "import os; print(float(any('LORAFLEET' in name for name in os.environ)))"
    assert await measure(python(code), SAMPLE, "") == 0.0


def test_the_mean_has_an_interval_that_counts_missing_values_and_forgets_what_does_not_apply() -> None:
    answers = [{"f1": Measured(0.5), "json": Measured(1.0)}, {"f1": Measured(0.7)}, {"f1": Measured(0.6)}]
    whole = summarise_metrics(answers, 0.95)
    assert (whole["f1"].mean.value, whole["f1"].samples, whole["f1"].missing) == (pytest.approx(0.6), 3, 0)
    assert whole["json"].samples == 1
    lacking = summarise_metrics([*answers, {"f1": Measured(None, "failed"), "none": Measured(None, "failed")}], 0.95)
    assert (lacking["f1"].samples, lacking["f1"].missing) == (3, 1)
    assert lacking["f1"].mean.value == pytest.approx(0.6)
    assert lacking["f1"].mean.low < whole["f1"].mean.low < 0.6 < whole["f1"].mean.high < lacking["f1"].mean.high
    assert "none" not in lacking
