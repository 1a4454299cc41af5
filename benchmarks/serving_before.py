"""The engine beside the one of an earlier revision, in processes of their own that take turns.

Run as a file it is such a process: it prints what the engine on its PYTHONPATH gives, as JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the earlier revision runs this file too, on modules of its own
    from benchmarks.report import Row
    from benchmarks.serving_engines import Bench

REVISION = "6e2405c4bd"
"""The last one before models of the Llama family were computed directly."""
ROOT = Path(__file__).parent.parent
REQUESTS, ADAPTERS, TOKENS, RANK = 32, 8, 64, 16
SHORT = "Name three rivers."
LONG = "Explain to a child why the sky is blue and why it turns red in the evening."

Speeds = dict[str, float]
"""Tokens per second: `burst` of 32 requests over 8 adapters, `one` request with an adapter."""


@contextmanager
def checked_out(revision: str = REVISION) -> Iterator[Path]:
    """The project's tree at this revision, in a folder for as long. Raises CalledProcessError where git lacks it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def speeds(tree: Path, model: Path, weights: str) -> Speeds:
    """What the engine of this tree gives with these weights, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": f"{tree / 'libs'}{os.pathsep}{tree}"}
    command = [sys.executable, "-P", __file__, str(model), weights]  # -P: this folder has a module lora_core too
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    found: Speeds = json.loads(done.stdout.splitlines()[-1])
    return found


def before(bench: "Bench") -> "list[Row]":
    """Float32 and 8 bits beside float32 of the revision before models were computed directly."""
    from benchmarks.report import Row

    seen: dict[str, list[Speeds]] = {"before": [], "float32": [], "int8": []}
    with checked_out() as tree:
        for _ in range(bench.effort.builds):
            seen["before"].append(speeds(tree, bench.model, "float32"))
            for weights in ("float32", "int8"):
                seen[weights].append(speeds(ROOT, bench.model, weights))
    rows: list[Row] = []
    for what, name, asks in (
        ("32 requests over 8 adapters, 64 tokens each", "burst", {"float32": 1.3, "int8": 2.0}),
        ("one request with an adapter, decoding", "one", {"float32": None, "int8": 2.0}),
    ):
        medians = {kind: statistics.median(one[name] for one in found) for kind, found in seen.items()}
        for weights, ask in asks.items():
            ratio = medians[weights] / medians["before"]
            rows.append(
                Row(
                    f"{what}, in the engine, {weights}",
                    "tokens/s",
                    medians[weights],
                    {"float32 of the revision before direct computation": medians["before"]},
                    ratio,
                    ask=None if ask is None else f"at least {ask:g} x",
                    met=None if ask is None else ratio >= ask,
                    n=bench.effort.builds,
                    note=f"revision {REVISION}; processes of their own, in turn",
                )
            )
    return rows


def _measure(model: Path, weights: str) -> Speeds:
    import torch

    from benchmarks.serving_stage import card
    from lora_core import base_model
    from lora_core.engine import ArrowEngine, Request

    try:
        from lora_core.compute_threads import compute_with, default_threads

        compute_with(default_threads())
    except ImportError:  # the earlier revision computes with what torch finds
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    loaded, tokenizer = base_model.load(model, weights)  # type: ignore[arg-type]
    engine = ArrowEngine(loaded, tokenizer, slots=ADAPTERS, max_rank=RANK)
    for number in range(ADAPTERS):
        engine.load(card(model, number, rank=RANK), f"a{number}")

    def rate(requests: list[Request]) -> float:
        begun = time.perf_counter()
        batch = engine.start(requests)
        if len(requests) == 1:  # decoding alone: the first step reads the prompt
            batch.step()
            begun = time.perf_counter()
        tokens = sum(1 for _ in batch)
        return tokens / (time.perf_counter() - begun)

    def request(number: int) -> Request:
        text = (SHORT, LONG)[number % 2]
        return Request(tokenizer(text)["input_ids"], max_tokens=TOKENS, adapter=f"a{number % ADAPTERS}")

    burst, one = [request(number) for number in range(REQUESTS)], [request(1)]
    rate(burst), rate(one)
    return {
        "burst": statistics.median(rate(burst) for _ in range(2)),
        "one": statistics.median(rate(one) for _ in range(3)),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), sys.argv[2])))
