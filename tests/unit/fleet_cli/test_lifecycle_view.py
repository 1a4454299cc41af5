"""What a recorded loop prints: the pipeline output of the requirements, and one JSON object a step."""

import io

import pytest
from rich.console import Console

from fleet_cli.follow.lifecycle import Happened, Loop, Step, advance, begin
from fleet_cli.follow.lifecycle_view import LoopView, changes, footer, header, outcome_json, step_json
from fleet_events import v1
from tests.unit.fleet_cli import recorded


def printed(*happened: Happened) -> tuple[list[str], Loop]:
    """Lines of a whole run, as a log shows it."""
    before = Loop(recorded.REQUEST)
    loop = begin(recorded.REQUEST)
    lines = header(loop) + changes(before, loop)
    for one in happened:
        then = advance(loop, one)
        lines += changes(loop, then)
        loop = then
    return lines + footer(loop), loop


@pytest.mark.requirement("LA-4.1")
def test_the_five_steps_are_printed_in_order_with_what_each_found() -> None:
    lines, _ = printed(*recorded.EVERYTHING)
    wanted = [
        "🚀 Starting LoRA Adapter Lifecycle Pipeline",
        "Domain: tax-law",
        "📥 Step 1/5: Streaming training data...",
        f"✅ Streamed 1247 samples to data set {recorded.DIGEST}",
        "🔧 Step 2/5: Training lora adapter...",
        f"✅ Training complete: loss 0.420, 40 steps, 61 s; {recorded.BLOB.uri}",
        "📦 Step 3/5: Registering adapter version...",
        "✅ Registered: tax-law-lora-v1.0.0",
        "🧑‍⚖️ Step 4/5: Evaluating with the reference judge...",
        "   Overall Score: 87.5/100 (95% interval 84.0 to 91.0)",
        "   Pass Rate: 90.0%",
        "   Samples: 18/20",
        "🔍 Step 5/5: Review and approval...",
        "✅ APPROVED by automated-pipeline: tax-law-lora-v1.0.0",
        "✅ ACTIVE: tax-law-lora-v1.0.0 answers for tax-law from now on",
        "🎉 Pipeline Complete!",
        "Version: 1.0.0",
        "Status: active",
        "Score: 87.5/100 (95% interval 84.0 to 91.0)",
    ]
    assert [line for line in lines if line in wanted] == wanted


def test_a_rejection_says_why_and_a_failure_says_where() -> None:
    rejected, _ = printed(*recorded.TO_SCORE, recorded.REJECTED)
    assert "❌ REJECTED: tax-law-lora-v1.0.0" in rejected
    assert "   score below 70" in rejected
    failed, _ = printed(recorded.STARTED, v1.TrainingFailed(job_id="job-1", reason="no samples"))
    assert "❌ training failed: no samples" in failed
    assert "❌ Pipeline failed" in failed
    assert not any("Step 3/5" in line for line in failed)


def test_a_repeated_event_prints_nothing_again() -> None:
    once, _ = printed(*recorded.EVERYTHING)
    thrice, _ = printed(*(one for one in recorded.EVERYTHING[:7] for _ in range(3)), *recorded.EVERYTHING[7:])
    assert thrice == once


def test_steps_and_outcome_are_json_objects_with_their_numbers() -> None:
    _, loop = printed(*recorded.EVERYTHING)
    steps = [step_json(step, loop) for step in Step]
    assert [one["name"] for one in steps] == ["data", "train", "register", "evaluate", "approve"]
    assert all(one["state"] == "done" for one in steps)
    assert (steps[0]["samples"], steps[3]["ci_low"]) == (1247, 84.0)
    assert outcome_json(loop) == {
        "outcome": "active",
        "job_id": "job-1",
        "adapter_id": "tax-law-lora-v1.0.0",
        "score": 87.5,
        "ci_low": 84.0,
        "ci_high": 91.0,
        "reason": recorded.APPROVED.reason,
        "exit_code": 0,
    }


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_a_line_a_tenth_in_a_log(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    loop = begin(recorded.REQUEST)
    with LoopView(console) as view:
        # The last steps go by unseen between two looks: the end is shown nevertheless.
        for one in [recorded.STARTED, *(recorded.progressed(step) for step in range(0, 39)), recorded.COMPLETED]:
            then = advance(loop, one)
            view.show(loop, then)
            loop = then
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("━" in text) is terminal
    if not terminal:
        assert [line.split()[0] for line in text.splitlines() if "steps loss" in line] == [
            f"{n}/40" for n in range(4, 41, 4)
        ]
