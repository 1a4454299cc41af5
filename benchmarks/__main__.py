"""Runs every benchmark and renders docs/benchmarks.md: `python -m benchmarks [--quick]`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("backbone", "lora_core")
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


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


def main(arguments: list[str]) -> int:
    lines = ["# Benchmarks", "", "Rendered by `make bench`. Medians; the two sides of a row alternate in one run.", ""]
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            target = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(target), *arguments]
            subprocess.run(command, check=True)
            result = json.loads(target.read_text())
            machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
            lines += [f"Machine: {machine}", "", *table(name, result)]
    if "--quick" not in arguments:
        PAGE.write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
