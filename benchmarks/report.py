"""The form that every benchmark reports in."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from services.trainer.training.resource_usage import processor_name

__all__ = ["Row", "Samples", "emit", "machine", "options", "parser_of"]


@dataclass(frozen=True)
class Samples:
    """Repeated measurements of one thing; the median speaks for them."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest."""
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class Row:
    """One claim.

    `ratio` is ours / the first peer. `limit` is the physical bound measured in the same run, if there is one.
    `ask` is the required bound and `met` whether the median meets it; both are None for a figure that is only
    reported. `ours` is None for a figure that was not measured; `note` then gives the reason.
    """

    what: str
    unit: str
    ours: float | None
    peers: dict[str, float] = field(default_factory=dict)
    ratio: float | None = None
    limit: float | None = None
    ask: str | None = None
    met: bool | None = None
    n: int = 1
    spread: tuple[float, float] | None = None
    note: str = ""


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": f"{processor_name()} ({platform.machine()})",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def parser_of(description: str) -> argparse.ArgumentParser:
    """--quick (checks the harness, not the times) and --json FILE."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few repetitions: correctness of the harness only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    return parser


def options(description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a benchmark that has no further ones."""
    return parser_of(description).parse_args(arguments)


def emit(rows: list[Row], target: Path | None, out: Callable[[str], object] = sys.stdout.write) -> None:
    """Print the result as one JSON object, and write it to a file if requested."""
    text = json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1)
    out(text + "\n")
    if target is not None:
        target.write_text(text + "\n")
