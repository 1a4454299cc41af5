"""What preparing training data costs: `python -m benchmarks.training_data [--quick] [--json FILE]`.

A million records of uneven length, a twentieth of them exact duplicates and some near ones, through the filters
length, rating, regular expression and exact duplicates, beside Hugging Face datasets doing the same work. Each run is
a fresh process; memory is the anonymous memory of the process and its children at its highest, so that files
mapped into memory count for neither side.
"""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.report import Row, Samples, emit, options
from fleet_kit.text_fingerprints import SCHEME, digest, signatures
from services.trainer.datasets.golden.index import GoldenIndex, GoldenPrint

ROWS, QUICK_ROWS = 1_000_000, 20_000
PEER, PEER_TWICE = "datasets, one process", "datasets, two processes"
FILTERS = "length, rating, regular expression, exact duplicates"


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    rows: int
    kept: int
    seconds: float
    processor_seconds: float
    memory_mb: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def processor(self) -> float:
        """Processor time of one row in microseconds, of all threads and processes together."""
        return self.processor_seconds / self.rows * 1e6


def texts(count: int) -> Iterator[tuple[str, str, float | None]]:
    """Prompt, completion and rating; the same ones for the same count."""
    draw = random.Random(11)
    letters = "etaoinshrdlucmfwypvbgkäöüß"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 11))) for _ in range(4000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    pool = draw.choices(words, weights, k=400_000)
    recent: list[tuple[str, str, float | None]] = []

    def sentence(low: int, high: int) -> str:
        length = int(low + (high - low) * draw.random() ** 3)
        at = draw.randrange(len(pool) - length)
        return " ".join(pool[at : at + length]).capitalize() + "."

    for _ in range(count):
        kind = draw.random()
        if recent and kind < 0.05:
            prompt, completion, rating = draw.choice(recent)
            made = (prompt.upper() if kind < 0.025 else f" {prompt}", completion, rating)
        elif recent and kind < 0.08:
            prompt, completion, rating = draw.choice(recent)
            made = (prompt, completion.rstrip(".") + f" {draw.choice(words)}.", rating)
        else:
            more = " Click here." if kind < 0.1 else ""
            made = (sentence(3, 60), sentence(4, 120) + more, draw.choice((*[None] * 7, 1.0, 3.0, 5.0)))
        if len(recent) < 5000:
            recent.append(made)
        else:
            recent[draw.randrange(5000)] = made
        yield made


def write(folder: Path, count: int) -> Path:
    """The records as JSONL and as Parquet, and 5,000 golden prompts; returns the Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from services.trainer.datasets.records import schema

    path = folder / "rows.parquet"
    waiting: list[dict[str, object]] = []
    with path.with_suffix(".jsonl").open("w") as lines, pq.ParquetWriter(path, schema()) as parquet:

        def flush() -> None:
            parquet.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema()))
            waiting.clear()

        for number, (prompt, completion, rating) in enumerate(texts(count)):
            row = {"prompt": prompt, "completion": completion} | ({} if rating is None else {"rating": rating})
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            waiting.append(
                {
                    "id": hashlib.sha256(str(number).encode()).hexdigest(),
                    "kind": "completion",
                    "prompt": [{"role": "user", "content": prompt}],
                    "completions": [completion],
                    "rating": rating,
                    "origin": "benchmark",
                    "source_id": str(number),
                    "synthetic": False,
                    "split": "train",
                }
            )
            if len(waiting) == 10_000:
                flush()
        flush()
    prompts = [f"golden {prompt}" for prompt, _, _ in texts(5000)]
    prints = zip(prompts, signatures(prompts), strict=True)
    GoldenIndex(
        tuple(GoldenPrint("exam@1.0.0", digest(one), sign.astype("<u4").tobytes(), SCHEME) for one, sign in prints)
    ).dump(folder / "golden.jsonl")
    return path


def run(side: str, source: Path) -> Run:
    """One side in a process of its own; what it wrote is removed."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        started = [sys.executable, "-m", "benchmarks.training_data_sides", side, str(source), f"{folder}/out.parquet"]
        process = subprocess.Popen(started, stdout=subprocess.PIPE, text=True)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, anonymous_mb(process.pid))
            time.sleep(0.05)
        output = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise RuntimeError(f"side {side} ended with status {process.returncode}")
    found = json.loads(output.strip().splitlines()[-1])
    return Run(found["rows"], found["kept"], found["seconds"], found["processor_seconds"], peak)


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process and its children, in MB; 0 for one that is gone."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for one in family:
        try:
            status = Path(f"/proc/{one.pid}/status").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
    return total / 1024


def row(what: str, unit: str, mine: list[float], peers: dict[str, list[float]], note: str = "", ask: str = "") -> Row:
    samples = Samples(tuple(mine))
    medians = {name: Samples(tuple(values)).median for name, values in peers.items()}
    first = next(iter(medians.values()), None)
    better = samples.median > first if unit == "rows/s" and first else samples.median < first if first else None
    return Row(
        what=what,
        unit=unit,
        ours=samples.median,
        peers=medians,
        ratio=samples.median / first if first else None,
        ask=ask or None,
        met=better if ask else None,
        n=len(mine),
        spread=samples.spread,
        note=note,
    )


def compared(source: Path, sides: tuple[str, ...], rounds: int) -> dict[str, list[Run]]:
    """Runs of each side, alternating; raises RuntimeError unless all keep the same number of records."""
    found: dict[str, list[Run]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side].append(run(side, source))
    kept = {side: runs[0].kept for side, runs in found.items()}
    if len(set(kept.values())) > 1:
        raise RuntimeError(f"the sides do not do the same work: {kept}")
    return found


def rows_of(what: str, found: dict[str, list[Run]], names: dict[str, str]) -> list[Row]:
    mine, *others = found
    first = found[mine][0]
    note = f"{first.rows} rows, {first.kept} kept by each"
    return [
        row(
            f"{what}: {of}",
            unit,
            [getattr(one, value) for one in found[mine]],
            {names[side]: [getattr(one, value) for one in found[side]] for side in others},
            note,
            ask,
        )
        for of, unit, value, ask in (
            ("speed", "rows/s", "rate", "faster than datasets in one process"),
            ("processor time", "µs/row", "processor", "less than datasets in one process"),
            ("peak memory", "MB", "memory_mb", "less than datasets in one process"),
        )
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run and report."""
    chosen = options(__doc__ or "", arguments)
    count, rounds = (QUICK_ROWS, 1) if chosen.quick else (ROWS, 3)
    with tempfile.TemporaryDirectory() as name:
        source = write(Path(name), count)
        names = {"peer": PEER, "peer_twice": PEER_TWICE, "peer_build": PEER}
        rows = rows_of(f"filters ({FILTERS})", compared(source, ("ours", "peer", "peer_twice"), rounds), names)
        rows += rows_of("whole build from JSONL", compared(source, ("build", "peer_build"), max(1, rounds - 2)), names)
        for side, what in (("near", "near duplicates (0.85)"), ("golden", "5,000 golden prompts")):
            runs = [run(side, source) for _ in range(max(1, rounds - 2))]
            note = f"{runs[0].rows} rows, {runs[0].kept} kept"
            rows.append(row(f"the same filters and {what}: speed", "rows/s", [one.rate for one in runs], {}, note))
            memory = [one.memory_mb for one in runs]
            rows.append(row(f"the same filters and {what}: peak memory", "MB", memory, {}, note))
        shutil.rmtree(source.parent / "cache", ignore_errors=True)
    emit(rows, chosen.json)


if __name__ == "__main__":
    main()
