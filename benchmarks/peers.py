"""What `benchmarks.lora_core` compares: the untouched model, ours and PEFT on the very same weights.

And what bounds them: the memory bandwidth and the arithmetic that this machine reaches in this run. As a program it
measures, in a process of its own, the resident memory that each adapter adds:
`python -m benchmarks.peers ours|peft MODEL ADAPTER COUNT DEVICE DTYPE`.
"""

import copy
import ctypes
import gc
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import safetensors.torch
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from benchmarks.report import Samples
from fleet_cli.stack import prepare_base_model
from fleet_cli.stack.home import Home, default_home
from lora_core import base_model
from lora_core.base_model import linear_shapes
from lora_core.card import LoRACard
from lora_core.engine import ArrowEngine
from lora_core.format.arrow_format import LoRAFormat
from lora_core.interop import to_peft
from lora_core.weights import LoRAWeights

Measure = Callable[[], float]  # does it once and returns how many seconds it took
RESIDENT = "resident"  # the name under which PEFT's first adapter stays loaded

# PEFT warns at each deletion of an active adapter: it would drown the result.
warnings.filterwarnings("ignore", module=r"peft\..*")


@dataclass(frozen=True)
class Clock:
    """Times calls on one device; on a GPU it waits until the queue is empty, before and after."""

    device: str

    def seconds(self, call: Callable[[], object]) -> float:
        self.wait()
        started = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - started

    def measure(self, call: Callable[[], object]) -> Measure:
        return lambda: self.seconds(call)

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def alternate(sides: Mapping[str, Measure], rounds: int, *, warm: int = 1) -> dict[str, Samples]:
    """Every side once a round, each second round in the opposite order; the first `warm` rounds are not counted.

    A single round, which only checks the harness, has none before it.
    """
    warm = min(warm, rounds - 1)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm, rounds):
        for name in sides if number % 2 else reversed(list(sides)):
            seconds = sides[name]()
            if number >= 0:
                found[name].append(seconds)
    return {name: Samples(tuple(values)) for name, values in found.items()}


@dataclass(frozen=True)
class Bounds:
    """The best that this machine did in this run.

    read, copy: bytes a second, where a copy counts what it reads and what it writes. flops: operations a second of a
    large matrix product in the model's dtype.
    """

    read: float
    copy: float
    flops: float

    @classmethod
    def measure(cls, clock: Clock, dtype: torch.dtype, *, rounds: int) -> Self:
        size, side = 2**26, 2048
        source, target = torch.ones(size, device=clock.device), torch.zeros(size, device=clock.device)
        a, b = (torch.ones((side, side), dtype=dtype, device=clock.device) for _ in range(2))
        took = alternate(
            {
                "read": clock.measure(source.sum),
                "copy": clock.measure(lambda: target.copy_(source)),
                "product": clock.measure(lambda: a @ b),
            },
            rounds,
        )
        best = {name: samples.spread[0] for name, samples in took.items()}
        return cls(4 * size / best["read"], 8 * size / best["copy"], 2 * side**3 / best["product"])

    def least(self, size: float, operations: float = 0) -> float:
        """Seconds that reading `size` bytes and so many operations take at least."""
        return max(size / self.read, operations / self.flops)


@dataclass(frozen=True)
class Files:
    """One adapter in every format: ours, PEFT's folder, and a plain torch file."""

    arrow: Path
    peft: Path
    torch: Path

    @property
    def safetensors(self) -> Path:
        return self.peft / "adapter_model.safetensors"


def random_card(
    name: str,
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    seed: int,
    dtype: npt.DTypeLike = np.float16,
    norms: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> LoRACard:
    """Random matrices, none of them zero, on every linear layer; DoRA where the base weights' row norms are given."""
    generator = np.random.default_rng(seed)

    def matrix(*shape: int) -> npt.NDArray[np.generic]:
        return (0.02 * generator.standard_normal(shape, dtype=np.float32)).astype(dtype)

    weights: dict[str, LoRAWeights] = {}
    for module, (outputs, inputs) in shapes.items():
        near = None if norms is None else norms[module] * generator.uniform(0.9, 1.1, outputs)
        magnitude = None if near is None else near.astype(dtype)
        weights[module] = LoRAWeights(matrix(rank, inputs), matrix(outputs, rank), magnitude=magnitude)
    targets = tuple(sorted({module.rpartition(".")[2] for module in shapes}))
    return LoRACard(name, rank, 2.0 * rank, targets, weights)


def write(card: LoRACard, folder: Path) -> Files:
    """The card in all formats."""
    files = Files(folder / f"{card.name}.arrow", folder / f"{card.name}-peft", folder / f"{card.name}.pt")
    LoRAFormat.save(card, files.arrow)
    to_peft(card, files.peft)
    torch.save({name: t.clone() for name, t in safetensors.torch.load_file(files.safetensors).items()}, files.torch)
    return files


def row_norms(model: PreTrainedModel, modules: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Module name → the lengths of its weight's rows, [out]: where DoRA starts from."""
    weights = {module: model.get_submodule(module).get_parameter("weight") for module in modules}
    return {module: weight.detach().float().norm(dim=1).cpu().numpy() for module, weight in weights.items()}


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A second module tree over the very same tensors: neither side has the luckier memory."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


class Peft:
    """PEFT's model with `RESIDENT` loaded and active."""

    def __init__(self, model: PreTrainedModel, first: Path) -> None:
        self.device = str(model.device)
        self.model: Any = PeftModel.from_pretrained(model, str(first), adapter_name=RESIDENT)
        self.model.eval()

    def load(self, folder: Path, name: str) -> None:
        """Load and activate, as quickly as PEFT can: its initial random matrices are left out."""
        self.add(folder, name)
        self.model.set_adapter(name)

    def add(self, folder: Path, name: str) -> None:
        self.model.load_adapter(str(folder), adapter_name=name, low_cpu_mem_usage=True, torch_device=self.device)

    def delete(self, name: str) -> None:
        self.model.delete_adapter(name)


@dataclass(frozen=True)
class Effort:
    """How often, and how much."""

    loads: int
    applies: int
    decodes: int
    short_prefills: int
    long_prefills: int
    tokens: int
    further: int
    slots: int
    known: int
    files: int
    picks: int
    peft_picks: int


@dataclass(frozen=True)
class Bench:
    """All sides at work on one base model. files: adapters of rank 16 in every format, all of one size."""

    effort: Effort
    clock: Clock
    bounds: Bounds
    model: Path
    folder: Path
    untouched: PreTrainedModel
    engine: ArrowEngine
    peft: Peft
    files: Sequence[Files]

    @property
    def card(self) -> LoRACard:
        """The first of the files, opened."""
        return LoRAFormat.load(self.files[0].arrow)

    def ids(self, rows: int, tokens: int) -> torch.Tensor:
        """Prompts of random tokens, [rows, tokens], the same in every run."""
        drawn = torch.randint(100, 40_000, (rows, tokens), generator=torch.Generator().manual_seed(0))
        return drawn.to(self.clock.device)


def prepare(effort: Effort, device: str, dtype: str, folder: Path) -> Bench:
    """Write the adapters and open all sides. The model is converted first if it was never used here."""
    _own_memory()
    base = prepare_base_model(Home(default_home()).models).path
    shapes = linear_shapes(base)
    files = [write(random_card(f"rank16-{seed}", shapes, 16, seed), folder) for seed in range(effort.files)]
    model, tokenizer = base_model.load(base)
    moved: Any = model
    moved.to(device=device, dtype=getattr(torch, dtype))
    clock = Clock(device)
    bounds = Bounds.measure(clock, model.dtype, rounds=max(3, effort.short_prefills))
    engine = ArrowEngine(twin(model), tokenizer, slots=48, max_rank=64)
    return Bench(effort, clock, bounds, base, folder, model, engine, Peft(twin(model), files[0].peft), files)


def _own_memory(size: int = 3 << 30) -> None:
    """Write to as many bytes as the run will use, and give them back.

    A virtual machine gets each page from its host when it is first touched, which was seen to take ten times as long as
    the page fault itself: the host's time, and no side's.
    """
    np.ones(size // 8)


def added_memory(side: str, model: Path, adapter: Path, count: int, clock: Clock, dtype: str) -> tuple[float, ...]:
    """Bytes that the first adapter adds, and each of `count` further ones, measured in a process of its own."""
    arguments = [side, str(model), str(adapter), str(count), clock.device, dtype]
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def resident(device: str) -> int:
    """Bytes in use once everything that can be given back was given back."""
    gc.collect()
    if device != "cpu":
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # glibc: free memory that it keeps would hide what the next adapter takes
    size: int = psutil.Process().memory_info().rss
    return size


def main(arguments: list[str]) -> None:
    """Load an adapter again and again under other names, use it on a forward pass each time, print what each added."""
    side, folder, adapter, count, device, dtype = arguments
    model, tokenizer = base_model.load(folder)
    moved: Any = model
    moved.to(device=device, dtype=getattr(torch, dtype))
    prompt = tokenizer("The quick brown fox", return_tensors="pt")["input_ids"].to(device)
    with torch.inference_mode():
        model(input_ids=prompt)  # the base model's pages and the scratch memory of a pass are no adapter's
    engine = ArrowEngine(model, tokenizer) if side == "ours" else None
    peft: Peft | None = None
    sizes = [resident(device)]
    for name in ("first", *(f"further-{number}" for number in range(int(count)))):
        if engine is not None:
            engine.load(Path(adapter), name)
            with engine.rows([name]):
                model(input_ids=prompt)
        else:
            peft = peft or Peft(model, Path(adapter))
            if name != "first":
                peft.load(Path(adapter), name)
            with torch.inference_mode():
                peft.model(input_ids=prompt)
        sizes.append(resident(device))
    print(json.dumps([after - before for before, after in pairwise(sizes)]))


if __name__ == "__main__":
    main(sys.argv[1:])
