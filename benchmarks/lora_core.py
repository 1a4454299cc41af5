"""What adapters cost on one base model: `python -m benchmarks.lora_core [--quick] [--json FILE] [--device cuda]`.

Opening a file, putting an adapter into a running engine and taking it out, what it adds to a forward pass, to the
resident memory, and what a crowd of adapters costs that does not fit into the slots. Beside it safetensors, torch and
PEFT. Adapters: float16, rank 16, all seven projections of every layer of SmolLM2-135M-Instruct, 420 matrices.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from benchmarks.compression import compressing
from benchmarks.overheads import Shape, adapter_each, merged, mixed_ranks, one_adapter
from benchmarks.peers import RESIDENT, Bench, Effort, added_memory, alternate, prepare, random_card, write
from benchmarks.report import Row, Samples, emit, options
from benchmarks.timing import timing
from lora_core.base_model import linear_shapes
from lora_core.engine import Request
from lora_core.format.arrow_format import LoRAFormat
from lora_core.tensors import to_torch

FULL = Effort(
    loads=101, applies=11, decodes=61, short_prefills=15, long_prefills=7, tokens=128,
    further=15, slots=32, known=1000, files=20, picks=160, peft_picks=12,
)  # fmt: skip
QUICK = Effort(
    loads=5, applies=1, decodes=1, short_prefills=1, long_prefills=1, tokens=16,
    further=1, slots=8, known=12, files=8, picks=3, peft_picks=1,
)  # fmt: skip
PEFT_LOAD = "PEFT load_adapter + set_adapter"
STEPS_A_PICK = 2  # each of 8 rows then lives for 16 tokens


def loading(bench: Bench) -> list[Row]:
    """A file in the page cache → torch tensors."""
    files, clock = bench.files[0], bench.clock

    def ours() -> list[torch.Tensor]:
        return [to_torch(array) for stack in LoRAFormat.load(files.arrow).stacks for array in stack.arrays.values()]

    def first() -> float:
        os.utime(files.arrow)  # a file of another time is one that this process has not verified
        return clock.seconds(ours)

    sides = {
        "ours": clock.measure(ours),
        "safetensors.torch.load_file": clock.measure(lambda: safetensors.torch.load_file(files.safetensors)),
        "torch.load(weights_only=True)": clock.measure(lambda: torch.load(files.torch, weights_only=True)),
    }
    again = alternate(sides, bench.effort.loads)
    once = alternate({**sides, "ours": first}, bench.effort.loads)
    size = files.arrow.stat().st_size
    limit, what = bench.bounds.least(size), f"load: {size / 1e6:.1f} MB in the page cache → tensors ready"
    peers = "safetensors maps the file and checks nothing, torch.load copies it"
    rows: list[Row] = []
    for took, suffix, most, note in (
        (again, "every load of a file after the first", 1.5, "the checksum of all bytes compared"),
        (once, "the first load of a file in a process", None, "and the sha256 of every tensor"),
    ):
        mine = took.pop("ours")
        rows.append(timing(f"{what}, {suffix}", mine, took, limit=limit, most=most, note=f"{note}; {peers}"))
    return rows


def fingerprint(bench: Bench) -> tuple[bytes, str]:
    """The engine's logits without adapters, and a hash of all base weights, bit for bit."""
    model = bench.engine.model
    with bench.engine.rows([None]):
        logits = model(input_ids=bench.ids(1, 16), use_cache=False).logits
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return logits.cpu().contiguous().view(torch.uint8).numpy().tobytes(), digest.hexdigest()


def applying(bench: Bench) -> list[Row]:
    """Into an engine with rows in progress, and out of it again."""
    engine, clock, effort = bench.engine, bench.clock, bench.effort
    path, folder, card, numbers = bench.files[0].arrow, bench.files[0].peft, bench.card, count()
    before = fingerprint(bench)
    engine.load(bench.files[1].arrow, "running")
    # No stop tokens: the rows outlive the benchmark. A step between the samples leaves the caches as serving does.
    ids = bench.ids(2, 16).tolist()
    batch = engine.start(
        [Request(row, name, max_tokens=10**6, stop_ids=()) for row, name in zip(ids, ("running", None), strict=False)]
    )
    removed: list[float] = []
    deleted: list[float] = []

    def put(source: Callable[[], object]) -> float:
        batch.step()
        return clock.seconds(source)

    def fresh(source: Path | None) -> float:
        os.utime(path)  # not verified by this process yet
        return put(lambda: engine.load(source or card, f"fresh-{next(numbers)}"))

    def used(source: Path | None) -> float:
        seconds = put(lambda: engine.load(source or card, "used"))
        removed.append(clock.seconds(lambda: engine.unload("used")))
        return seconds

    def peft() -> float:
        seconds = put(lambda: bench.peft.load(folder, "applied"))
        bench.peft.model.set_adapter(RESIDENT)
        deleted.append(clock.seconds(lambda: bench.peft.delete("applied")))
        return seconds

    first = alternate({"card": lambda: fresh(None), "file": lambda: fresh(path), "peft": peft}, effort.applies, warm=0)
    for name in engine.loaded:
        if name.startswith("fresh"):
            engine.unload(name)
    removed.clear()
    deleted.clear()
    again = alternate({"card": lambda: used(None), "file": lambda: used(path), "peft": peft}, effort.applies, warm=1)
    batch.close()
    engine.unload("running")
    identical = fingerprint(bench) == before
    written = card.parameters * engine.model.dtype.itemsize
    limit = (card.bytes + written) / bench.bounds.copy
    bounded = max((first, again), key=lambda took: took["card"].median)
    rows: list[Row] = []
    for took, slot, verified in ((first, "a fresh slot", "verified first"), (again, "a used slot", "verified before")):
        beside = {PEFT_LOAD: took["peft"]}
        most = 15 if took is bounded else None
        note = "the bound holds for the slower of the two" if took is bounded else ""
        what = f"apply an opened card into a running engine, {slot}"
        rows.append(timing(what, took["card"], beside, limit=limit, most=most, note=note))
        what = f"from the file to first usable in a running engine, {slot}, the file {verified}"
        rows.append(timing(what, took["file"], beside, limit=limit, most=None))
    note = f"logits and base weights bit-identical to before: {'yes' if identical else 'NO'}"
    beside = {"PEFT delete_adapter": Samples(tuple(deleted))}
    row = timing("remove", Samples(tuple(removed)), beside, limit=None, most=1, note=note)
    return [*rows, row if identical else Row(**{**vars(row), "met": False})]


def memory(bench: Bench) -> list[Row]:
    """Resident bytes of active adapters, in processes of their own.

    A full run fills all 16 slots, and the note has the first adapter and the mean: memory that the first takes for all
    of them must not look free afterwards.
    """
    shapes = linear_shapes(bench.model)
    width = bench.engine.model.dtype.itemsize
    kept = write(random_card("float32", shapes, 16, 99, np.float32), bench.folder)
    rows: list[Row] = []
    kinds = (("float32", kept, width == 4), ("float16", bench.files[0], width == 2))
    for kind, files, bounded in kinds[: bench.effort.further]:  # a quick run shows with one that it works
        tensors = LoRAFormat.load(files.arrow).bytes
        sides = {"ours": files.arrow, "peft": files.peft}
        dtype = str(bench.engine.model.dtype).removeprefix("torch.")
        added = {
            side: [
                size / tensors
                for size in added_memory(side, bench.model, adapter, bench.effort.further, bench.clock, dtype)
            ]
            for side, adapter in sides.items()
        }
        each = {side: sum(sizes) / len(sizes) for side, sizes in added.items()}
        mine, theirs = Samples(tuple(added["ours"][1:])), Samples(tuple(added["peft"][1:]))
        rows.append(
            Row(
                what=f"resident memory that a further active adapter adds, {kind} file",
                unit="× its tensor bytes",
                ours=mine.median,
                peers={"PEFT load_adapter": theirs.median},
                ratio=mine.median / theirs.median,
                limit=width * LoRAFormat.load(files.arrow).parameters / tensors,
                ask="at most 1.1" if bounded else None,
                met=mine.median <= 1.1 if bounded else None,
                n=1 + bench.effort.further,
                spread=(min(added["ours"]), max(added["ours"])),
                note=f"our first {added['ours'][0]:.2f}, mean of all {each['ours']:.2f}; PEFT's first "
                f"{added['peft'][0]:.2f}, mean {each['peft']:.2f}; {tensors / 1e6:.1f} MB of tensors, held as {dtype}, "
                "the model's dtype",
            )
        )
    return rows


class Crowd:
    """One side that serves more adapters than it holds: the least recently used one goes."""

    def __init__(self, load: Callable[[int], object], unload: Callable[[int], object], capacity: int) -> None:
        self._load, self._unload = load, unload
        self._held: OrderedDict[int, None] = OrderedDict()
        for adapter in reversed(range(capacity)):  # the most popular are there to begin with
            load(adapter)
            self._held[adapter] = None
        self.swaps: list[float] = []
        self.steps: list[float] = []
        self.picks = 0

    def pick(self, adapter: int, bench: Bench) -> None:
        self.picks += 1
        if adapter not in self._held:

            def swap() -> None:
                self._unload(self._held.popitem(last=False)[0])
                self._load(adapter)

            self.swaps.append(bench.clock.seconds(swap))
            self._held[adapter] = None
        self._held.move_to_end(adapter)

    @property
    def lost(self) -> float:
        """Percent of the serving time."""
        return 100 * sum(self.swaps) / (sum(self.swaps) + sum(self.steps))

    def __str__(self) -> str:
        rate = len(self.swaps) / (sum(self.swaps) + sum(self.steps))
        hits = 100 * (1 - len(self.swaps) / self.picks)
        return f"{self.picks} picks, {hits:.0f} % hits, {rate:.2f} swaps a second"


def crowd(bench: Bench) -> list[Row]:
    """Picks from many known adapters, Zipf-distributed with exponent 1.1; each takes the oldest of 8 rows."""
    effort, engine, peft = bench.effort, bench.engine, bench.peft
    paths = [bench.folder / f"known-{number}.arrow" for number in range(effort.known)]
    for number, path in enumerate(paths):
        path.hardlink_to(bench.files[number % effort.files].arrow)
        LoRAFormat.load(path)  # verified, as any file is that a node has served before
    ours = Crowd(lambda n: engine.load(paths[n], f"{n}"), lambda n: engine.unload(f"{n}"), effort.slots)
    theirs = Crowd(
        lambda n: peft.add(bench.files[n % effort.files].peft, f"{n}"), lambda n: peft.delete(f"{n}"), effort.slots
    )
    popularity = np.arange(1, effort.known + 1) ** -1.1
    generator = np.random.default_rng(0)
    picks = generator.choice(effort.known, effort.picks, p=popularity / popularity.sum()).tolist()
    rows = list(reversed(range(8)))  # the oldest first, as in the order of their last use
    step = Shape(8, 1, 1)
    with torch.inference_mode():
        own_pass = step.of(engine.model, bench)
        names = [f"{row}" for row in rows]
        peft_pass = step.of(peft.model, bench, adapter_names=names)
    for number, adapter in enumerate(picks):
        rows = [*rows[1:], adapter]
        names[:] = [f"{row}" for row in rows]
        ours.pick(adapter, bench)
        for _ in range(STEPS_A_PICK):
            with engine.rows(names):
                ours.steps.append(bench.clock.seconds(own_pass))
        if number < effort.peft_picks:
            theirs.pick(adapter, bench)
            with torch.inference_mode():
                theirs.steps += [bench.clock.seconds(peft_pass) for _ in range(STEPS_A_PICK)]
    card = bench.card
    limit = (card.bytes + card.parameters * engine.model.dtype.itemsize) / bench.bounds.copy
    setting = f"{effort.known} adapters known ({effort.files} files under as many names), {effort.slots} slots"
    return [
        timing(
            f"{setting}: one swap, from the file in the page cache",
            Samples(tuple(ours.swaps)),
            {"PEFT delete_adapter + load_adapter": Samples(tuple(theirs.swaps))} if theirs.swaps else {},
            limit=limit,
            most=None,
        ),
        Row(
            what=f"{setting}: serving time lost to swaps",
            unit="%",
            ours=ours.lost,
            peers={"PEFT": theirs.lost} if theirs.swaps else {},
            ratio=ours.lost / theirs.lost if theirs.swaps else None,
            limit=100 * limit * len(ours.swaps) / (sum(ours.swaps) + sum(ours.steps)),
            n=ours.picks,
            note=f"{ours}; PEFT: {theirs}; {STEPS_A_PICK} decode steps of 8 rows a pick, least recently used goes",
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run and report."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    own.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    where, rest = own.parse_known_args(arguments)
    chosen = options(__doc__ or "", rest)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(QUICK if chosen.quick else FULL, where.device, where.dtype, Path(folder))
        rows: list[Row] = []
        for part in (loading, applying, one_adapter, adapter_each, mixed_ranks, merged, compressing, memory, crowd):
            started = time.perf_counter()
            rows += part(bench)
            print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    emit(rows, chosen.json)


if __name__ == "__main__":
    main()
