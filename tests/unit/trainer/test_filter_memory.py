"""Filters hold little of what went through them, however much that is."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.unit, pytest.mark.heavy, pytest.mark.timeout(600), pytest.mark.requirement("AS-3.1")]

PROGRAM = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from services.trainer.datasets.filters import FilterRecipe, FilterReport, apply
from services.trainer.datasets.records import schema

WARM, ROWS, BATCH = 100_000, 500_000, 10_000
draw = np.random.default_rng(5)
words = np.array([f"word{number}" for number in range(20_000)])

def held():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) * 1024

def batches(rows):
    for start in range(0, rows, BATCH):
        picked = words[draw.integers(0, len(words), (BATCH, 24))]
        texts = [" ".join(row) for row in picked]
        yield pa.RecordBatch.from_pydict({
            "id": [f"{start + at:064x}" for at in range(BATCH)],
            "kind": ["completion"] * BATCH,
            "prompt": [[{"role": "user", "content": text}] for text in texts],
            "completions": [["An answer of a few words."]] * BATCH,
            "rating": [None] * BATCH, "origin": [""] * BATCH, "source_id": [""] * BATCH,
            "synthetic": [False] * BATCH, "split": ["train"] * BATCH,
        }, schema=schema())

report, highest, warm, passed = FilterReport(), 0, 0, 0
recipe = FilterRecipe.model_validate_json(sys.argv[1])
for batch in apply(batches(ROWS), recipe, None, report):
    passed += batch.num_rows
    if passed <= WARM:
        warm = max(warm, held())
    highest = max(highest, held())
assert report.received == report.kept == ROWS, report
print((highest - warm) / (ROWS - WARM))
"""


@pytest.mark.parametrize(
    ("recipe", "bytes_a_row"),
    [
        ('{"length": {"min_prompt_words": 3}, "boilerplate": {}, "exact_duplicates": null}', 20),
        ('{"length": {"min_prompt_words": 3}, "exact_duplicates": {}}', 90),
        ('{"exact_duplicates": {}, "near_duplicates": {}}', 800),
    ],
)
def test_memory_grows_by_no_more_than_what_duplicates_are_found_by(recipe: str, bytes_a_row: int) -> None:
    """What is kept of a row is 28 bytes, or with near duplicates 356; columns that grow take half as much again."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, recipe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < bytes_a_row, done.stdout
