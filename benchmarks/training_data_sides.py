"""One side of `benchmarks.training_data`: `python -m benchmarks.training_data_sides SIDE SOURCE OUT`.

Prints one JSON object: rows, kept, seconds and processor seconds, both without imports. Every side reads the same
records and writes what passes the same filters to Parquet.
"""

import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE: dict[str, Any] = {
    "length": {"min_prompt_characters": 20, "max_completion_characters": 600, "min_completion_words": 4},
    "rating": {"min_rating": 2},
    "patterns": [{"name": "advertising", "pattern": r"(?i)\b(?:click here|subscribe now)\b"}],
    "exact_duplicates": {},
}
_ADVERTISING = re.compile(r"\b(?:click here|subscribe now)\b", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def ours(source: Path, out: Path, **more: Any) -> tuple[int, int]:
    """Our filters over the records' Parquet, as the building of a data set runs them."""
    import pyarrow.parquet as pq

    from services.trainer.datasets.filters import FilterRecipe, FilterReport, apply
    from services.trainer.datasets.golden.index import GoldenIndex
    from services.trainer.datasets.records import schema

    golden = GoldenIndex.load(source.parent / "golden.jsonl") if more.pop("golden", False) else None
    report = FilterReport()
    with pq.ParquetFile(source) as file, pq.ParquetWriter(out, schema()) as writer:
        for batch in apply(file.iter_batches(1024), FilterRecipe.model_validate(RECIPE | more), golden, report):
            writer.write_batch(batch)
    return report.received, report.kept


def near(source: Path, out: Path) -> tuple[int, int]:
    """The same and near duplicates."""
    return ours(source, out, near_duplicates={"threshold": 0.85})


def golden(source: Path, out: Path) -> tuple[int, int]:
    """The same beside 5,000 golden prompts."""
    return ours(source, out, golden=True)


def _fits(prompt: str, completion: str, rating: float | None) -> bool:
    if len(prompt) < 20 or len(completion) > 600 or len(completion.split()) < 4:
        return False
    if rating is not None and rating < 2:
        return False
    return not (_ADVERTISING.search(prompt) or _ADVERTISING.search(completion))


def _form(text: str) -> str:
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text).lower()).strip()


def peer(source: Path, out: Path, processes: int | None = None) -> tuple[int, int]:
    """Hugging Face datasets, batched as its documentation advises."""
    from datasets import Dataset, disable_progress_bars
    from xxhash import xxh3_128_digest

    disable_progress_bars()
    data = Dataset.from_parquet(str(source), cache_dir=str(out.parent / f"cache-{out.stem}"))

    def fits(batch: dict[str, list[Any]]) -> list[bool]:
        return [
            _fits(prompt[-1]["content"], completions[0], rating)
            for prompt, completions, rating in zip(batch["prompt"], batch["completions"], batch["rating"], strict=True)
        ]

    def digest(batch: dict[str, list[Any]]) -> dict[str, list[bytes]]:
        return {
            "digest": [
                xxh3_128_digest(f"{_form(prompt[-1]['content'])}\x1d{_form(completions[0])}".encode())
                for prompt, completions in zip(batch["prompt"], batch["completions"], strict=True)
            ]
        }

    seen: set[bytes] = set()

    def fresh(batch: dict[str, list[Any]]) -> list[bool]:
        return [len(seen) != (seen.add(one) or len(seen)) for one in batch["digest"]]  # type: ignore[func-returns-value]

    rows = len(data)
    data = data.filter(fits, batched=True, num_proc=processes).map(digest, batched=True, num_proc=processes)
    # What was seen before is known to one process only.
    data = data.filter(fresh, batched=True).remove_columns("digest")
    data.to_parquet(str(out))
    return rows, len(data)


def peer_twice(source: Path, out: Path) -> tuple[int, int]:
    """The same in two processes, where it can be."""
    return peer(source, out, 2)


def build(source: Path, out: Path) -> tuple[int, int]:
    """The whole building of a data set from JSONL: rows checked, ids, order, filters, split, Parquet and card."""
    from services.trainer.datasets.filters import FilterRecipe
    from services.trainer.datasets.records import Kind
    from services.trainer.datasets.worker import __main__ as building
    from services.trainer.datasets.worker.card import DataCard
    from services.trainer.datasets.worker.spec import BuildSpec, Input, InputFile

    work = out.parent / f"work-{out.stem}"
    work.mkdir()
    spec = BuildSpec(
        domain="benchmark",
        name="rows",
        kind=Kind.COMPLETION,
        inputs=(
            Input(
                files=(InputFile(path=source.with_suffix(".jsonl"), format="jsonl", name="rows"),),
                origin="benchmark",
                unusable="refuse",
                described={},
                field="sources.0",
            ),
        ),
        filters=FilterRecipe.model_validate(RECIPE),
        validation_part=0.0,
        seed=0,
        licence="",
        work=work,
        supervisor=os.getppid(),
    )
    built = building._build(spec)
    card = DataCard.model_validate_json(built.card.read_bytes())
    return sum(one.rows for one in card.sources), built.samples


def peer_build(source: Path, out: Path) -> tuple[int, int]:
    """datasets from the same JSONL, with ids and in their order."""
    import hashlib

    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    cache = str(out.parent / f"cache-{out.stem}")
    data = Dataset.from_json(str(source.with_suffix(".jsonl")), cache_dir=cache)
    rows = len(data)

    def record(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = list(zip(batch["prompt"], batch["completion"], strict=True))
        return {
            "id": [hashlib.sha256(json.dumps(pair).encode()).hexdigest() for pair in pairs],
            "prompt": [[{"role": "user", "content": prompt}] for prompt, _ in pairs],
            "completions": [[completion] for _, completion in pairs],
        }

    made = data.map(record, batched=True, remove_columns=["completion"]).sort("id")
    between = out.with_suffix(".records.parquet")
    made.to_parquet(str(between))
    return rows, peer(between, out)[1]


SIDES: dict[str, Callable[[Path, Path], tuple[int, int]]] = {
    "ours": ours,
    "near": near,
    "golden": golden,
    "peer": peer,
    "peer_twice": peer_twice,
    "build": build,
    "peer_build": peer_build,
}


def main(side: str, source: str, out: str) -> None:
    """Run one side."""
    import datasets  # noqa: F401 - importing is no part of any side's work
    import polars  # noqa: F401

    import services.trainer.datasets.filters.chain

    assert services.trainer.datasets.filters.chain
    started, worked = time.perf_counter(), sum(os.times()[:4])
    rows, kept = SIDES[side](Path(source), Path(out))
    seconds, processor = time.perf_counter() - started, sum(os.times()[:4]) - worked
    print(json.dumps({"rows": rows, "kept": kept, "seconds": seconds, "processor_seconds": processor}))


if __name__ == "__main__":
    main(*sys.argv[1:])
