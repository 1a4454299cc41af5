"""Figures on a GPU: `python -m benchmarks.gpu [--quick] [--json FILE] [--parts serve,large,train] [--seconds N]`.

Models of random weights in the shapes of Llama 1B and 8B, made on the device: nothing is downloaded. `--quick` runs the
mechanics with tiny shapes on what there is. Parts that do not fit into `--seconds` are reported as not measured, as
is everything that needs what is not built.
"""

import argparse
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from benchmarks import gpu_serving, gpu_training, training_speed
from benchmarks.gpu_models import LARGE, SMALL, TINY, Ceilings, Shape, ceilings
from benchmarks.report import Row, emit

PARTS = ("agree", "serve", "train", "large", "anatomy")
NOT_BUILT = {
    "own adapters beside base rows, one being loaded: longest pause of the batch": "needs loading beside steps",
    "8B QLoRA and 8B bfloat16 LoRA, batch of 16k tokens: model FLOP utilisation": "needs `precision` and checkpointing",
    "SFT tokens/s, 1B, best settings of each side, equal loss": "needs `precision` and token-budget batches",
}


class Report:
    """Rows as they come: kept in the file after each, so that a run that is cut short leaves what it measured."""

    def __init__(self, target: Path | None, end: float) -> None:
        self.rows: list[Row] = []
        self._target, self._end = target, end

    def part(self, name: str, rows: Callable[[], Iterable[Row]]) -> None:
        """Measure a part; what it fails with, or that there was no time for it, is a row."""
        try:
            for row in self._timed(name, rows):
                self.keep(row)
        except Exception as error:  # the other parts are worth having
            traceback.print_exc()
            self.keep(Row(name, "", None, note=f"not measured: {type(error).__name__}: {str(error)[:200]}"))

    def _timed(self, name: str, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
        if time.monotonic() > self._end:
            yield Row(name, "", None, note="not measured: no time was left")
            return
        began = time.monotonic()
        for row in rows():
            yield row
            if time.monotonic() > self._end:
                yield Row(f"the rest of {name}", "", None, note="not measured: no time was left")
                break
        print(f"[{name}: {time.monotonic() - began:.0f} s]", flush=True)

    def keep(self, row: Row) -> None:
        self.rows.append(row)
        emit(self.rows, self._target, out=lambda _: None)
        shown = "not measured" if row.ours is None else f"{row.ours:.4g} {row.unit}"
        peers = ", ".join(f"{name} {value:.4g}" for name, value in row.peers.items())
        limit = "" if row.limit is None else f" limit {row.limit:.4g}"
        print(f"{row.what}: {shown} [{peers}]{limit} met {row.met}; {row.note}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """All parts that fit into the time, in order of what they are worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: correctness of the harness only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here, after every row")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=1200, help="no row is begun after these")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="a tokenizer's folder; needed to train")
    chosen = parser.parse_args(arguments)
    parts = chosen.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: no part {', '.join(sorted(unknown))}, expected some of {', '.join(PARTS)}")
    device = "cuda" if torch.cuda.is_available() and not chosen.quick else "cpu"
    if device == "cpu" and not chosen.quick:
        parser.error("no GPU is present; --quick checks the harness without one")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    report = Report(chosen.json, time.monotonic() + chosen.seconds)
    small, large = (TINY, TINY) if chosen.quick else (SMALL, LARGE)
    bounds = ceilings(device, dtype)
    report.part("machine", lambda: _machine(device, bounds))
    few = gpu_serving.Plan(device, dtype, (2,), 6, 4, 12, 1)
    if "agree" in parts:
        plan = few if chosen.quick else gpu_serving.Plan(device, dtype, (8,), 64, 48, 512, 1)
        report.part("agreement", lambda: gpu_serving.agreement(small, plan))
    if "serve" in parts:
        plan = few if chosen.quick else gpu_serving.Plan(device, dtype, (1, 8, 32, 64), 64, 48, 512, 3)
        report.part("serving, small", lambda: _serving(small, plan, bounds))
    if "train" in parts:
        sizes = gpu_training.Sizes(3, (2,), 20) if chosen.quick else gpu_training.Sizes(12, (8, 32), 120)
        report.part("training", lambda: _training(small, sizes, chosen.tokenizer, device))
    if "large" in parts:
        plan = few if chosen.quick else gpu_serving.Plan(device, dtype, (64,), 64, 48, 512, 3)
        report.part("serving, large", lambda: _serving(large, plan, bounds))
    if "anatomy" in parts:
        sizes = gpu_training.Sizes(3, (2,), 20) if chosen.quick else gpu_training.Sizes(4, (8,), 120)
        report.part("anatomy", lambda: _anatomy(small, sizes, chosen.tokenizer, device, chosen.json))
    for what, why in NOT_BUILT.items():
        report.keep(Row(what, "", None, note=f"not measured: {why}"))
    emit(report.rows, chosen.json)
    return 0


def _machine(device: str, bounds: Ceilings) -> Iterator[Row]:
    import peft
    import transformers

    card = torch.cuda.get_device_name(0) if device == "cuda" else platform.processor() or platform.machine()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    yield Row("copy", "TB/s", bounds.bandwidth / 1e12, n=10, note=f"{card}; {versions}; bytes read plus written")
    yield Row("product of matrices in the benchmark's precision", "TFLOP/s", bounds.arithmetic / 1e12, n=10, note=card)


def _serving(shape: Shape, plan: gpu_serving.Plan, bounds: Ceilings) -> Iterator[Row]:
    served = gpu_serving.Served(shape, plan)
    try:
        yield from gpu_serving.decoding(served, bounds)
        yield from gpu_serving.loading(served)
        yield from gpu_serving.first_token(served)
    finally:
        served.close()


def _training(shape: Shape, sizes: gpu_training.Sizes, tokenizer: Path | None, device: str) -> Iterator[Row]:
    if tokenizer is None:
        yield Row("training", "", None, note="not measured: --tokenizer names no folder")
        return
    with tempfile.TemporaryDirectory() as folder:
        model = gpu_training.model_folder(shape, tokenizer, Path(folder), device)
        yield from gpu_training.training(model, shape, sizes, device)


def _anatomy(
    shape: Shape, sizes: gpu_training.Sizes, tokenizer: Path | None, device: str, target: Path | None
) -> Iterator[Row]:
    if tokenizer is None:
        yield Row("anatomy of a training step", "", None, note="not measured: --tokenizer names no folder")
        return
    with tempfile.TemporaryDirectory() as folder:
        model = gpu_training.model_folder(shape, tokenizer, Path(folder), device)
        for cudnn in (True, False) if device == "cuda" else (False,):
            side = gpu_training.Side("", training_speed.ours, half=True, packed=True, cudnn=cudnn)
            table = gpu_training.anatomy(model, sizes, side)
            if target is not None:
                target.with_name(f"{target.stem}-anatomy-{'cudnn' if cudnn else 'other'}.txt").write_text(table)
            yield Row(f"anatomy, cuDNN attention {'allowed' if cudnn else 'off'}", "lines", float(table.count("\n")))


if __name__ == "__main__":
    sys.exit(main())
