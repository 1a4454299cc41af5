"""Curves of a training as SVG geometry: what the page's template draws, without a script."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.trainer.reports.document import StepPart, TrainingReport

WIDTH, HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 12.0, 12.0, 30.0
_MOST_POINTS = 400  # of a drawn line: more than a screen shows
_TICKS = 4

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One series: `path` is the SVG path, `dots` its points where they are few enough to be seen one by one."""

    name: str
    path: str
    dots: tuple[Point, ...]
    kind: str


@dataclass(frozen=True)
class Chart:
    """A figure with one or two series over the optimizer steps. `summary` describes in words what it shows."""

    name: str
    title: str
    summary: str
    lines: tuple[Line, ...]
    horizontal: tuple[Tick, ...]
    vertical: tuple[Tick, ...]


def charts(report: TrainingReport) -> tuple[Chart, ...]:
    """Loss (with validation loss), learning rate, gradient norm, speed and memory, as far as they were logged."""
    validated = [(float(one.step), one.loss) for one in report.validations]

    def points(value: Callable[[StepPart], float]) -> list[Point]:
        return [(float(step.step), value(step)) for step in report.curve]

    memory = points(lambda step: step.peak_memory_bytes / 2**20)
    found = [
        _chart("loss", "Loss (nats per token)", {"training": points(lambda step: step.loss), "validation": validated}),
        _chart("rate", "Learning rate", {"learning rate": points(lambda step: step.learning_rate)}),
        _chart("norm", "Gradient norm, before clipping", {"gradient norm": points(lambda step: step.gradient_norm)}),
        _chart("speed", "Tokens per second", {"speed": points(lambda step: step.tokens_per_second)}),
        _chart("memory", "Peak memory (MiB)", {"memory": memory} if any(y for _, y in memory) else {}),
    ]
    return tuple(one for one in found if one is not None)


def _chart(name: str, title: str, series: dict[str, list[Point]]) -> Chart | None:
    drawn = {label: [one for one in points if math.isfinite(one[1])] for label, points in series.items()}
    drawn = {label: points for label, points in drawn.items() if points}
    every = [point for points in drawn.values() for point in points]
    if not every:
        return None
    x = _Axis.over((one[0] for one in every), LEFT, WIDTH - RIGHT, whole=True)
    y = _Axis.over((one[1] for one in every), HEIGHT - BOTTOM, TOP)
    description = "; ".join(
        f"{label} from {points[0][1]:.4g} to {points[-1][1]:.4g}, lowest {min(p[1] for p in points):.4g}, "
        f"highest {max(p[1] for p in points):.4g}"
        for label, points in drawn.items()
    )
    lines = []
    for label, points in drawn.items():
        placed = [(x.place(a), y.place(b)) for a, b in thinned(points, _MOST_POINTS)]
        kind = "validation" if label == "validation" else "training"
        lines.append(Line(label, _path(placed), tuple(placed) if len(placed) <= 40 else (), kind))
    return Chart(name, title, description, tuple(lines), x.ticks, y.ticks)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points with the same outline: lowest and highest of each stretch, in their order."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for index in range(stretches):
        part = points[index * len(points) // stretches : (index + 1) * len(points) // stretches]
        lowest, highest = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept += sorted({lowest, highest})
    return kept


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, whole: bool = False) -> "_Axis":
        known = list(values)
        low, high = min(known), max(known)
        if low == high:
            low, high = (low - 1, high + 1) if whole else (low - abs(low or 1) / 10, high + abs(high or 1) / 10)
        pitch = _pitch((high - low) / _TICKS, whole=whole)
        first = math.ceil(low / pitch)
        marks = [index * pitch for index in range(first, math.floor(high / pitch + 1e-9) + 1)]
        bare = cls(low, high, start, end, ())
        return cls(low, high, start, end, tuple(Tick(bare.place(one), _label(one, pitch)) for one in marks))


def _pitch(about: float, *, whole: bool) -> float:
    """1, 2 or 5 times a power of ten, at least `about`; steps are whole."""
    power = 10.0 ** math.floor(math.log10(about))
    found = next(power * one for one in (1, 2, 5, 10) if power * one >= about * (1 - 1e-9))
    return max(1.0, found) if whole else found


def _label(value: float, pitch: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    decimals = max(0, -math.floor(math.log10(pitch) + 1e-9))
    return f"{value:.{decimals}f}"


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
