"""How a loop looks: the lines of lifecycle-automation.md's pipeline output, rich progress bars, JSON per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from fleet_cli.follow.job_progress_view import numbers
from fleet_cli.follow.lifecycle import Fact, Loop, Outcome, Progress, Step, StepState

RULE = "=" * 70


def header(loop: Loop) -> list[str]:
    """The request."""
    request = loop.request
    rank = request.hyperparameters.rank if request.hyperparameters else None
    threshold = request.auto_approve_threshold
    return [
        RULE,
        "🚀 Starting LoRA Adapter Lifecycle Pipeline",
        RULE,
        f"Domain: {request.domain}",
        f"Method: {request.method or 'lora'}" + (f", rank {rank}" if rank else ""),
        f"Query: {request.query or '(all recorded samples)'}",
        f"Golden Dataset: {request.golden_dataset_id or '(newest of the domain)'}",
        f"Auto-approve threshold: {'the policy of the domain' if threshold is None else f'{threshold:g}'}",
        f"Job: {loop.job_id}",
        RULE,
    ]


def title(step: Step, loop: Loop) -> str:
    """A step's heading."""
    method = loop.request.method or "lora"
    match step:
        case Step.DATA:
            return "📥 Step 1/5: Streaming training data..."
        case Step.TRAIN:
            return f"🔧 Step 2/5: Training {method} adapter..."
        case Step.REGISTER:
            return "📦 Step 3/5: Registering adapter version..."
        case Step.EVALUATE:
            return "🧑‍⚖️ Step 4/5: Evaluating with the reference judge..."
        case Step.APPROVE:
            return "🔍 Step 5/5: Review and approval..."


def result(step: Step, loop: Loop) -> list[str]:
    """What a finished step found."""
    progress = loop.steps[step]
    facts = progress.facts
    if progress.state is StepState.FAILED:
        return [f"❌ {facts.get('reason')}"]
    match step:
        case Step.DATA:
            return [f"✅ Streamed {facts.get('samples', '?')} samples to data set {facts.get('dataset_id', '?')}"]
        case Step.TRAIN:
            return [f"✅ Training complete: {_training_numbers(facts)}{facts.get('checkpoint', '')}"]
        case Step.REGISTER:
            return [f"✅ Registered: {loop.adapter_id}"]
        case Step.EVALUATE:
            return _evaluation(facts)
        case Step.APPROVE:
            return _decision(loop)


def footer(loop: Loop) -> list[str]:
    """The summary."""
    outcome = loop.outcome
    register, evaluate = loop.steps[Step.REGISTER].facts, loop.steps[Step.EVALUATE].facts
    title_line = "🎉 Pipeline Complete!" if outcome is not Outcome.FAILED else "❌ Pipeline failed"
    lines = ["", RULE, title_line, RULE, f"Adapter ID: {loop.adapter_id or '–'}"]
    if register:
        lines.append(f"Version: {register.get('version')}")
    lines.append(f"Status: {outcome.value if outcome else 'under way'}")
    if evaluate.get("score") is not None:
        lines.append(f"Score: {_score(evaluate)}")
    if register:
        lines.append(f"Artifact: sha256 {register.get('artifact_sha256')}")
    if evaluate.get("evaluation_id"):
        lines.append(f"Evaluation: {evaluate['evaluation_id']}")
    if loop.reason:
        lines.append(f"Reason: {loop.reason}")
    return [*lines, RULE]


def changes(before: Loop, after: Loop, until: Step = Step.APPROVE) -> list[str]:
    """The lines to print when `before` became `after`: headings of begun steps, findings of ended ones."""
    lines: list[str] = []
    for step in Step:
        if step > until:
            break
        was, now = before.steps[step], after.steps[step]
        if was.state is StepState.WAITING and now.state is not StepState.WAITING:
            lines += ["", title(step, after)]
        ended = now.state in (StepState.DONE, StepState.FAILED)
        # Approved → active is one decision that ends twice.
        again = step is Step.APPROVE and before.outcome is not after.outcome
        if ended and (was.state is not now.state or again):
            lines += result(step, after)
    return lines


def step_json(step: Step, loop: Loop) -> dict[str, object]:
    """A step as one JSON object."""
    progress = loop.steps[step]
    return {
        "step": int(step),
        "name": step.name.lower(),
        "state": progress.state.value,
        "job_id": loop.job_id,
        **progress.facts,
    }


def outcome_json(loop: Loop) -> dict[str, object]:
    """The end as one JSON object."""
    return {
        "outcome": loop.outcome.value if loop.outcome else None,
        "job_id": loop.job_id,
        "adapter_id": loop.adapter_id or None,
        "score": loop.steps[Step.EVALUATE].facts.get("score"),
        "ci_low": loop.steps[Step.EVALUATE].facts.get("ci_low"),
        "ci_high": loop.steps[Step.EVALUATE].facts.get("ci_high"),
        "reason": loop.reason,
        "exit_code": int(loop.outcome.exit_code) if loop.outcome else None,
    }


def _number(value: Fact) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _training_numbers(facts: Mapping[str, Fact]) -> str:
    parts = []
    if "train_loss" in facts:
        parts.append(f"loss {_number(facts['train_loss']):.3f}")
    if "steps" in facts:
        parts.append(f"{_number(facts['steps']):.0f} steps")
    if "seconds" in facts:
        parts.append(f"{_number(facts['seconds']):.0f} s")
    return ", ".join(parts) + ("; " if parts else "")


def _score(facts: Mapping[str, Fact]) -> str:
    level = _number(facts.get("confidence")) or 0.95
    return (
        f"{_number(facts.get('score')):.1f}/100 "
        f"({level:.0%} interval {_number(facts.get('ci_low')):.1f} to {_number(facts.get('ci_high')):.1f})"
    )


def _evaluation(facts: Mapping[str, Fact]) -> list[str]:
    if "score" not in facts:
        return ["📊 Evaluation Results: already known to the registry"]
    lines = [
        "📊 Evaluation Results:",
        f"   Overall Score: {_score(facts)}",
        f"   Pass Rate: {_number(facts.get('pass_rate')):.1%}",
        f"   Samples: {facts.get('passed')}/{facts.get('samples')}",
    ]
    if facts.get("regression"):
        lines.append("   ⚠ significantly worse than the version it would replace")
    return lines


def _decision(loop: Loop) -> list[str]:
    score = loop.steps[Step.EVALUATE].facts.get("score")
    match loop.outcome:
        case Outcome.APPROVED:
            by = loop.steps[Step.APPROVE].facts.get("by")
            lines = [f"✅ APPROVED by {by}: {loop.adapter_id}"]
        case Outcome.ACTIVE:
            return [f"✅ ACTIVE: {loop.adapter_id} answers for {loop.request.domain} from now on"]
        case Outcome.PENDING_REVIEW:
            lines = [f"⏳ REVIEW NEEDED: {loop.adapter_id}"]
        case Outcome.REJECTED:
            lines = [f"❌ REJECTED: {loop.adapter_id}"]
        case _:
            lines = []
    if score is not None:
        lines.append(f"   Score: {_number(score):.1f}/100")
    return [*lines, f"   {loop.reason}"] if loop.reason else lines


class LoopView:
    """Shows a loop as it advances: lines and, on a terminal, a bar for the step under way."""

    BARS: ClassVar[Mapping[Step, str]] = {Step.TRAIN: "steps", Step.EVALUATE: "samples"}

    def __init__(self, console: Console, until: Step = Step.APPROVE) -> None:
        self._console = console
        self._until = until
        self._bars = Bars(
            TextColumn("   "),
            SpinnerColumn(),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[Step, TaskID] = {}
        self._tenths: dict[Step, int] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def print_lines(self, lines: Sequence[str]) -> None:
        """Print plain lines above the bars."""
        for line in lines:
            self._console.print(Text(line))

    def show(self, before: Loop, after: Loop) -> None:
        """Show what changed."""
        for step, unit in self.BARS.items():
            ended = after.steps[step].state is StepState.DONE and before.steps[step].state is StepState.RUNNING
            if ended and after.steps[step].total:
                self._move(step, after.steps[step], unit)
        self.print_lines(changes(before, after, self._until))
        for step, unit in self.BARS.items():
            progress = after.steps[step]
            if progress.state is StepState.RUNNING and progress.total:
                self._move(step, progress, unit)
            elif step in self._tasks and progress.state is not StepState.RUNNING:
                self._bars.remove_task(self._tasks.pop(step))

    def _move(self, step: Step, progress: Progress, unit: str) -> None:
        note = numbers(progress.facts)
        if not self._console.is_terminal:
            # A log gets a line for every tenth, in place of a bar.
            tenth = 10 * progress.done // progress.total
            if tenth > self._tenths.get(step, 0):
                self._tenths[step] = tenth
                self.print_lines([f"   {progress.done}/{progress.total} {unit} {note}".rstrip()])
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task("", total=progress.total, unit=unit, note=note)
        self._bars.update(self._tasks[step], completed=progress.done, total=progress.total, note=note)
