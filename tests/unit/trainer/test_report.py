"""The report of a finished training: its numbers, its page, its model card, and what the router gets to know."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fleet_events import v1
from services.trainer.datasets.records import Kind, Record, prompt_messages
from services.trainer.reports import curves, description, model_card, page
from services.trainer.reports.document import ExportPart, TrainingReport
from services.trainer.training.protocol import Outcome, ResourceUsage
from services.trainer.training.resource_usage import Meter
from services.trainer.training.router_prompts import example_prompts, prompts_about_nobody
from tests.unit.trainer.reports import blob, finished, result, steps

pytestmark = pytest.mark.unit

EXPORTS = (
    ExportPart(kind="int8", blob=blob("8"), same_token=0.995, validation_loss=1.26, quality_threshold=0.98, fit=True),
    ExportPart(kind="int4", blob=blob("4"), same_token=0.71, validation_loss=2.5, quality_threshold=0.85, fit=False),
)
CARD = {"sources": [{"name": "court <rulings>", "records": 40}], "dropped": {"duplicates": 10}, "licence": None}


@pytest.fixture(scope="module")
def report() -> TrainingReport:
    return description.describe(result(), {"artifact": blob("artifact")}, EXPORTS, CARD)


def test_every_answer_of_a_data_set_has_a_prompt_before_any_has_a_second() -> None:
    pairs = [(f"q{answer}-{wording}", f"a{answer}") for wording in range(10) for answer in range(36)]
    prompts = example_prompts(pairs)
    assert len(prompts) == 64
    assert {prompt.partition("-")[0] for prompt in prompts[:36]} == {f"q{answer}" for answer in range(36)}


def test_a_prompt_with_several_answers_is_named_once() -> None:
    assert example_prompts([("same", "a"), ("same", "b"), ("other", "a")]) == ("same", "other")


@pytest.mark.requirement("TP-5.2")
def test_the_numbers_are_those_of_the_weights_that_were_kept(report: TrainingReport) -> None:
    found = report.results
    assert (found.steps, found.final_loss, found.train_loss) == (60, 0.05, pytest.approx(0.23400, abs=1e-4))
    assert (found.best_step, found.stopped_early, found.validation_loss) == (40, True, 1.25)
    assert (found.seconds, found.tokens, found.tokens_per_second) == (30.0, 6000, 200.0)
    assert found.peak_memory_bytes == 160 * 2**20
    assert (report.time.waited_seconds, report.time.attempts) == (5.0, 2)
    assert TrainingReport.model_validate_json(report.model_dump_json()) == report


def test_without_a_best_step_the_last_validation_counts_and_the_event_names_it() -> None:
    whole = result()
    last = replace(whole, outcome=Outcome(whole.outcome.began, finished(best_step=None)))
    assert description.results(last).validation_loss == 1.75
    assert description.metrics(last) == {
        "steps": 60.0,
        "final_loss": 0.05,
        "train_loss": pytest.approx(0.234, abs=1e-4),
        "seconds": 30.0,
        "tokens": 6000.0,
        "tokens_per_second": 200.0,
        "samples": 23.0,
        "left_out": 1.0,
        "left_out_rating": 0.0,
        "eval_accuracy": 0.75,
        "eval_loss": 1.75,
    }
    assert "eval_loss" not in description.metrics(replace(whole, validations=()))


def test_energy_is_an_estimate_unless_the_machine_counts_it_and_covers_resumed_steps() -> None:
    whole = result()
    estimated = description.describe(whole, {}).energy
    assert estimated is not None
    assert (estimated.method, estimated.watt_hours) == ("estimate", pytest.approx(72 * 5 / 3600))
    assert "5 W" in estimated.note
    counted = finished(effort=ResourceUsage(seconds=1, processor_seconds=1, joules=3600), environment={"gpu": "H100"})
    half = description.describe(replace(result(resumed=30), outcome=Outcome(result(30).outcome.began, counted)), {})
    assert half.energy is not None
    assert (half.energy.method, half.energy.watt_hours) == ("rapl", pytest.approx(2.0))
    assert "step 30" in half.energy.note
    assert "GPU" in half.energy.note
    unmeasured = replace(whole, outcome=Outcome(whole.outcome.began, finished(effort=None)))
    assert description.describe(unmeasured, {}).energy is None


def test_the_energy_counters_are_read_over_their_end(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def say(zone: str, spent: int) -> None:
        (tmp_path / zone).mkdir(exist_ok=True)
        (tmp_path / zone / "energy_uj").write_text(str(spent))
        (tmp_path / zone / "max_energy_range_uj").write_text("9000000")

    say("intel-rapl:0", 8_000_000)
    say("intel-rapl:1", 1_000_000)
    say("intel-rapl:0:1", 5)  # part of the first package: counted there
    meter = Meter(tmp_path)
    say("intel-rapl:0", 1_000_000)
    say("intel-rapl:1", 4_000_000)
    say("intel-rapl:0:1", 800_000)
    assert meter.read().joules == pytest.approx(2 + 3)
    assert Meter(tmp_path / "nothing").read().joules is None


class Outline(HTMLParser):
    """Open elements, what is fetched, and the texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.requirement("TP-5.2")
def test_the_page_is_well_formed_fetches_nothing_and_escapes_what_it_was_told(report: TrainingReport) -> None:
    shown = page.render(report)
    outline = Outline()
    outline.feed(shown)
    outline.close()
    assert outline.open == []
    tags = [tag for tag, _ in outline.seen]
    assert not {"script", "img", "link", "iframe", "b-"} & set(tags)
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", shown)
    assert all(not {"src", "href"} & set(attributes) for _, attributes in outline.seen)
    text = " ".join(" ".join(outline.texts).split())
    for wanted in ("knows § 42 <script>", "court <rulings>", "a <fast> one", "Hi <b>", "Hello & welcome"):
        assert wanted in text
    for wanted in ("160.0 MiB", "those of step 40", "0.1 Wh (estimate)", "99.5 %", "not fit", "learning_rate"):
        assert wanted in text
    figures = [attributes for tag, attributes in outline.seen if tag == "svg"]
    named = {attributes.get("id") for _, attributes in outline.seen}
    assert len(figures) == 5
    assert all(one["role"] == "img" and one["aria-labelledby"] in named for one in figures)
    assert "prefers-color-scheme: dark" in shown


def test_curves_keep_their_outline_when_they_are_thinned_and_lie_inside_the_figure(report: TrainingReport) -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[1234], points[7777] = (1234.0, 9.0), (7777.0, -9.0)
    kept = curves.thinned(points, 400)
    assert len(kept) <= 400
    assert {(1234.0, 9.0), (7777.0, -9.0)} <= set(kept)
    assert kept == sorted(kept)
    loss = curves.charts(report)[0]
    assert [line.name for line in loss.lines] == ["training", "validation"]
    for line in loss.lines:
        numbers = [tuple(map(float, one.split())) for one in line.path[1:].split("L")]
        assert len(numbers) == {"training": 60, "validation": 3}[line.name]
        assert all(curves.LEFT <= x <= curves.WIDTH - curves.RIGHT for x, _ in numbers)
        assert all(curves.TOP <= y <= curves.HEIGHT - curves.BOTTOM for _, y in numbers)
    assert [tick.label for tick in loss.horizontal] == ["20", "40", "60"]


def test_a_training_of_one_step_has_a_page_too() -> None:
    one = replace(result(), steps=steps(1), validations=())
    charts = curves.charts(description.describe(one, {}))
    assert [chart.name for chart in charts] == ["loss", "rate", "norm", "speed", "memory"]
    assert "Training report" in page.render(description.describe(one, {}))


@pytest.mark.requirement("TP-5.2")
def test_the_model_card_has_the_front_matter_that_the_hub_and_peft_read(report: TrainingReport) -> None:
    card = ModelCard(model_card.render(report))
    assert card.data.base_model == "tiny: llama"
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert {"lora", "base_model:adapter:tiny: llama", "sft"} <= set(card.data.tags)
    assert "PeftModel.from_pretrained" in card.text
    assert "    Hi <b>" in card.text
    assert "| validation loss | 1.25 |" in card.text


def test_a_model_card_shows_what_people_wrote_as_text(report: TrainingReport) -> None:
    hostile = """<script>alert(1)</script>
# heading
![x](https://example.org/x.png) [click](javascript:alert(1)) <javascript:alert(2)> https://example.org
```
</code></pre><img src=x onerror=alert(1)>
</summary> | cell | **bold** `code` &lt;b&gt;
"""
    told = report.model_copy(
        update={
            "description": hostile,
            "base_model": v1.BaseModel(name=hostile, revision="0" * 64),
            "samples": tuple(
                one.model_copy(update={"prompt": hostile, "before": hostile, "after": hostile})
                for one in report.samples
            ),
        }
    )
    text = ModelCard(model_card.render(told)).text
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tags = set(re.findall(r"<([a-z0-9]+)", shown))
    assert tags <= {"h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td"}, tags
    assert shown.count("<h1>") == 1
    assert len(told.samples) > 0
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


@pytest.mark.requirement("LA-1.7")
def test_no_prompt_of_a_record_about_a_person_is_shown_to_the_router() -> None:
    """Events that hold these prompts are never deleted."""
    about = Record(Kind.COMPLETION, prompt_messages("Where does Anna live?"), ("Here.",), subjects=("0" * 64,))
    bare = Record(Kind.COMPLETION, prompt_messages("Where is the gate?"), ("There.",))
    assert prompts_about_nobody([about, bare]) == ("Where is the gate?",)
