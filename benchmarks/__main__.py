"""Runs benchmarks and renders docs/benchmarks.md: `python -m benchmarks [NAME ...] [--quick]`, by default all of them.

The last full result of each is kept beside the page, so that one can be run again without the others.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = (
    "backbone",
    "console",
    "decision_rules",
    "judging",
    "lora_core",
    "progressive_delivery",
    "routing",
    "serving",
    "serving_profile",
    "training",
    "training_data",
)
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
RESULTS = PAGE.with_suffix("")


def cell(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return str(value)


def table(name: str, result: dict[str, object]) -> list[str]:
    lines = [f"## {name}", "", "| what | unit | ours | beside it | ratio | limit | ask | met | n | note |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    rows = result["rows"]
    assert isinstance(rows, list)
    for row in rows:
        peers = "; ".join(f"{peer} {cell(value)}" for peer, value in row["peers"].items()) or "—"
        cells = [row["what"], row["unit"], cell(row["ours"]), peers]
        cells += [cell(row[key]) for key in ("ratio", "limit", "ask", "met", "n")]
        lines.append("| " + " | ".join([*cells, row["note"]]) + " |")
    return [*lines, ""]


def page() -> str:
    """All results that are kept."""
    lines = [
        "# Benchmarks",
        "",
        "Rendered by `make bench`. Medians; the two sides of a row alternate in one run. —: nothing beside it.",
        "",
    ]
    for name in NAMES:
        kept = RESULTS / f"{name}.json"
        if kept.exists():
            result = json.loads(kept.read_text())
            machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
            lines += [*table(name, result), f"Machine: {machine}", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    options = [argument for argument in arguments if argument.startswith("-")]
    names = [argument for argument in arguments if argument not in options] or list(NAMES)
    if unknown := set(names) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}: expected {', '.join(NAMES)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            target = Path(folder) / f"{name}.json"
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(target), *options], check=True)
            if "--quick" not in options:
                RESULTS.mkdir(exist_ok=True)
                (RESULTS / f"{name}.json").write_text(target.read_text())
    if "--quick" not in options:
        PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
