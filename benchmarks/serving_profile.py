"""Where a step and a first token spend their time: `python -m benchmarks.serving_profile [--quick] [--json FILE]`.

The engine in this process, its own forward pass beside that of transformers in turns; what a shared system prompt and
answers of a given form cost; the engine beside that of an earlier revision; and the first token over HTTP on an idle
server, beside the engine's own time for it.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import Row, Samples, emit, options
from benchmarks.serving_before import before
from benchmarks.serving_costs import forms, rounding, shared_prompt
from benchmarks.serving_engines import ADAPTERS, Bench, Effort, prompt, requests, timed
from benchmarks.serving_plan import QUESTIONS
from benchmarks.serving_stage import card, first_token_of, stage
from fleet_cli.stack import Fleet, prepare_base_model
from fleet_cli.stack.home import Home, default_home
from lora_core import Request, base_model, batch
from lora_core.device import Weights
from lora_core.sampling import Adapters, Pick, Sampler, pick_all

KINDS: tuple[Weights, ...] = ("float32", "int8")
PRODUCTS = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "onednn::qlinear",
    "quantized::linear",
    "mkldnn::_linear",
)
ATTENTION = ("aten::_scaled_dot_product",)


def steps(bench: Bench) -> list[Row]:
    """A decode step by rows and weights: where its time goes, and the same step through transformers."""
    rows = []
    for weights in KINDS:
        engine = bench.engine(weights)
        direct = engine._direct
        for count in (1, 8, bench.effort.rows):
            for adapters in (False, True):
                running = {}
                for side, own in (("ours", direct), ("theirs", None)):
                    engine._direct = own
                    running[side] = engine.start(requests(count, adapters=adapters))
                    for _ in range(2):
                        running[side].step()
                seen: dict[str, list[float]] = {side: [] for side in running}
                for _ in range(bench.effort.steps):
                    for side, own in (("ours", direct), ("theirs", None)):
                        engine._direct = own
                        seen[side].append(timed(running[side].step))
                engine._direct = direct
                took = Samples(tuple(1000 * one for one in seen["ours"]))
                theirs = 1000 * statistics.median(seen["theirs"])
                what = "8 adapters" if adapters else "no adapter"
                rows.append(
                    Row(
                        f"decode step, {weights}, {count} rows, {what}",
                        "ms",
                        took.median,
                        {"through transformers": theirs},
                        took.median / theirs,
                        n=bench.effort.steps,
                        spread=took.spread,
                        note=f"{torch.get_num_threads()} threads: {_shares(running['ours'].step)}",
                    )
                )
                for one in running.values():
                    one.close()
    return rows


def _shares(step: Callable[[], object]) -> str:
    """The shares of a step's parts. The profiler makes every call dearer: the last share is an upper bound."""
    picked: list[float] = []

    def picking(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Pick]:
        begun = time.perf_counter()
        found = pick_all(samplers, logits)
        picked.append(time.perf_counter() - begun)
        return found

    with patch.object(batch, "pick_all", picking):
        whole = timed(step)
        sampling = picked[-1] / whole
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            begun = time.perf_counter()
            step()
            profiled = time.perf_counter() - begun
    events: Any = seen.key_averages()

    def of(names: Sequence[str]) -> float:
        own = [one.self_cpu_time_total for one in events if one.key.startswith(tuple(names))]
        return float(sum(own)) / 1e6 / profiled

    operations = sum(one.self_cpu_time_total for one in events if "::" in one.key) / 1e6 / profiled
    products, attention = of(PRODUCTS), of(ATTENTION)
    parts = {
        "products": products,
        "attention": attention,
        "sampling": sampling,
        "other operations": max(0.0, operations - products - attention - sampling),
        "Python": max(0.0, 1 - operations),
    }
    return ", ".join(f"{name} {share:.0%}" for name, share in parts.items())


def first_of_the_engine(bench: Bench) -> list[Row]:
    """A prompt of 40 tokens, from the request to its first token in the engine, beside the untouched model's pass."""
    rows = []
    tokens = 40
    plain, _ = base_model.load(bench.model)
    for weights in KINDS:
        engine = bench.engine(weights)
        for adapter in (None, "a0"):
            ours, untouched = [], []
            for turn in range(2 + bench.effort.steps):
                ids = prompt(tokens, turn)
                begun = time.perf_counter()
                running = engine.start([Request(ids, adapter, max_tokens=2, stop_ids=())])
                running.step()
                ours.append(1000 * (time.perf_counter() - begun))
                running.close()
                with torch.inference_mode():
                    call = lambda ids=ids: plain(torch.tensor([ids]), use_cache=True, logits_to_keep=1)  # noqa: E731
                    untouched.append(1000 * timed(call))
            took = Samples(tuple(ours[2:]))
            theirs = statistics.median(untouched[2:])
            rows.append(
                Row(
                    f"first token in the engine, {weights}, prompt of {tokens} tokens, {adapter or 'base'}",
                    "ms",
                    took.median,
                    {"one prefill pass of the untouched model, float32": theirs},
                    took.median / theirs,
                    ask="at most 1.3 x" if weights == "float32" else None,
                    met=took.median <= 1.3 * theirs if weights == "float32" else None,
                    n=len(took.values),
                    spread=took.spread,
                )
            )
    return rows


async def over_http(bench: Bench, fleet: Fleet) -> list[Row]:
    """The first token of a chat on a server that does nothing else, one request after another."""
    rows = []
    for weights in KINDS:
        async with stage(fleet, bench.model, weights=weights) as at:
            await at.ready(at.base)
            adapter = at.adapter(await at.store(card(bench.model, 0)), "first")
            await at.activate(adapter)
            await at.ready(adapter.adapter_id)
            for name in (at.base, adapter.adapter_id):
                seen = []
                for turn in range(2 + bench.effort.firsts):
                    text = f"{turn} {QUESTIONS[3]}"
                    took, tokens = await first_token_of(at, name, text)
                    seen.append(1000 * took)
                    await asyncio.sleep(0.3)  # what the request before leaves to be done is done
                took_all = Samples(tuple(seen[2:]))
                own = _own_first(bench, weights, None if name == at.base else ADAPTERS[0], tokens)
                rows.append(
                    Row(
                        f"first token over HTTP, idle, {weights}, {'base' if name == at.base else 'adapter'}, "
                        f"prompt of {tokens} tokens",
                        "ms",
                        took_all.median,
                        {"the engine's own": own},
                        took_all.median / own,
                        n=bench.effort.firsts,
                        spread=took_all.spread,
                        note=f"beyond the engine: {took_all.median - own:.1f} ms: HTTP, access, tokenizing, hand-over",
                    )
                )
    return rows


def _own_first(bench: Bench, weights: Weights, adapter: Adapters, tokens: int) -> float:
    engine, seen = bench.engine(weights), []
    for turn in range(2 + bench.effort.steps):
        running = engine.start([Request(prompt(tokens, turn), adapter, max_tokens=2, stop_ids=())])
        seen.append(1000 * timed(running.step))
        running.close()
    return statistics.median(seen[2:])


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "steps": steps,
    "first": first_of_the_engine,
    "forms": forms,
    "rounding": rounding,
    "shared": shared_prompt,
    "before": before,
}


def main() -> None:
    """Run and report. A run of some parts leaves the rows of the others as they are in the file."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--parts", nargs="+", choices=(*PARTS, "http"), default=(*PARTS, "http"))
    which, rest = own.parse_known_args()
    arguments = options(__doc__ or "", rest)
    model = prepare_base_model(Home.open(default_home()).models).path
    bench = Bench(model, Effort.of(arguments.quick))
    rows: list[Row] = []
    for name in which.parts:
        if name == "http":
            with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder) / "home") as fleet:
                fleet.start([])
                rows += asyncio.run(over_http(bench, fleet))
        else:
            rows += PARTS[name](bench)
        emit(_with_others(rows, arguments.json), arguments.json, out=lambda _: None)
    emit(_with_others(rows, arguments.json), arguments.json)


def _with_others(rows: list[Row], file: Path | None) -> list[Row]:
    before = json.loads(file.read_text())["rows"] if file is not None and file.exists() else []
    measured = {row.what for row in rows}
    return [Row(**row) for row in before if row["what"] not in measured] + rows


if __name__ == "__main__":
    main()
