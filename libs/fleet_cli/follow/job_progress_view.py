"""How a watched training looks: one live line with its newest numbers on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from fleet_cli.follow.job_progress import Course, Number, StateTold, StepTold, Told, ValidationTold


def numbers(found: Mapping[str, Number]) -> str:
    """`loss 2.310 · validation 2.402 · lr 5.0e-04 · norm 1.20 · 180 tokens/s · 512 MiB`, as far as known."""
    shapes = (
        ("loss", "loss {:.3f}", 1.0),
        ("validation_loss", "validation {:.3f}", 1.0),
        ("learning_rate", "lr {:.1e}", 1.0),
        ("gradient_norm", "norm {:.2f}", 1.0),
        ("tokens_per_second", "{:.0f} tokens/s", 1.0),
        ("peak_memory_bytes", "{:.0f} MiB", 2.0**-20),
    )
    known = ((shape, factor, found.get(name)) for name, shape, factor in shapes)
    return " · ".join(shape.format(value * factor) for shape, factor, value in known if isinstance(value, int | float))


def line(told: Told, total: int) -> str:
    """One event as a line of a log."""
    match told:
        case StepTold():
            where = f"step {told.step}/{total}" if total else f"step {told.step}"
            return f"{where} {numbers(told.model_dump(exclude={'kind', 'step'}))}"
        case ValidationTold():
            measured = "".join(f" · {name} {value:.4g}" for name, value in sorted(told.metrics.items()))
            return f"validation at step {told.step}: loss {told.loss:.4f}{', the best' if told.best else ''}{measured}"
        case StateTold():
            return f"{told.state}: {told.reason}" if told.reason and told.final else told.state


class CourseView:
    """Shows a course as it goes on. Off a terminal, steps are told in tenths of the whole, the rest always."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth = -1
        self._bars = Bars(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", total=None, numbers="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def show(self, told: Told, course: Course) -> None:
        """Show an event; `course` has it already."""
        total = course.total or None
        self._bars.update(self._task, completed=course.done, total=total, numbers=numbers(course.numbers))
        if not isinstance(told, StepTold) or (not self._console.is_terminal and self._is_due(told.step, course.total)):
            self._console.print(Text(line(told, course.total)))

    def _is_due(self, step: int, total: int) -> bool:
        tenth = 10 * step // total if total else step // 10
        due = tenth > self._tenth
        self._tenth = max(tenth, self._tenth)
        return due
