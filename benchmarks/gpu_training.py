"""Training on a GPU: the trainer's own loop beside TRL + PEFT, in float32 and bfloat16, with peak memory."""

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_models import Shape, llama
from benchmarks.report import Row
from benchmarks.training_speed import Course, ours, theirs
from services.trainer.datasets.records import Kind, Record, prompt_messages
from services.trainer.training import adapted_model, trainer_arguments
from services.trainer.training.configuration import Configuration
from services.trainer.training.objectives import objective_trainer
from services.trainer.training.packing import model as packed_model


@dataclass(frozen=True)
class Sizes:
    """How much is trained. batches: records of a step; longest: words of a text."""

    steps: int
    batches: tuple[int, ...]
    longest: int


def records(count: int, longest: int) -> list[Record]:
    """Instructions of uneven length: prompts of 5 to `longest` words and completions of 3 to two thirds of that."""
    words = (Path(__file__).parent.parent / "docs" / "lora_core.md").read_text().split()
    draw = random.Random(0)

    def text(least: int, most: int) -> str:
        length = round(least * (most / least) ** draw.random())
        start = draw.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    return [
        Record(Kind.COMPLETION, prompt_messages(text(5, longest)), (text(3, max(4, longest * 2 // 3)),))
        for _ in range(count)
    ]


def model_folder(shape: Shape, tokenizer: Path, folder: Path, device: str) -> Path:
    """A model of random weights in bfloat16 as a folder, with the tokenizer of another."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    model = llama(replace(shape, vocabulary=max(shape.vocabulary, len(loaded))), device, torch.bfloat16)
    model.save_pretrained(folder)
    loaded.save_pretrained(folder)
    del model
    _clear()
    return folder


_ROUNDED = 0.5  # nats by which bfloat16 may move a log-probability; the trainer's own bound is float32's


@contextmanager
def bfloat16(*, packed: bool) -> Iterator[None]:
    """The trainer's loop with the base model in bfloat16 and autocast; packed: with a bound that its rounding meets."""
    common, load, alike = trainer_arguments.common, adapted_model.load, packed_model._ALIKE

    def typed(*given: Any, **named: Any) -> dict[str, Any]:
        return common(*given, **named) | {"bf16": True}

    def loaded(folder: Path, method: str) -> Any:
        model: Any = load(folder, method)
        return model.to(torch.bfloat16)

    trainer_arguments.common, adapted_model.load = typed, loaded
    packed_model._ALIKE = _ROUNDED if packed else alike
    try:
        yield
    finally:
        trainer_arguments.common, adapted_model.load, packed_model._ALIKE = common, load, alike


@contextmanager
def layouts() -> Iterator[list[str]]:
    """Why the trainings inside padded their rows, an empty text where they packed them."""
    found: list[str] = []
    module: Any = objective_trainer
    install = module.install

    def noted(model: Any) -> str:
        found.append(install(model))
        return found[-1]

    module.install = noted
    try:
        yield found
    finally:
        module.install = install


@contextmanager
def cudnn_attention(enabled: bool) -> Iterator[None]:
    """Whether attention may be cuDNN's, which plans every new shape."""
    backends: Any = torch.backends.cuda
    before = backends.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@dataclass(frozen=True)
class Side:
    """One way to train. half: ours in bfloat16; packed: with a bound that its rounding meets."""

    name: str
    train: Callable[..., Any]
    half: bool = False
    packed: bool = False
    cudnn: bool = True


def training(folder: Path, shape: Shape, sizes: Sizes, device: str) -> Iterator[Row]:
    """Tokens a second and peak memory of each side on the same records."""
    sides = (
        Side("ours, float32 (today's build)", ours),
        Side("ours, bfloat16, packed, cuDNN attention off", ours, half=True, packed=True, cudnn=False),
        Side("ours, bfloat16, packed, cuDNN attention allowed", ours, half=True, packed=True),
        Side("ours, bfloat16, as the float32 bound lays it out, cuDNN attention allowed", ours, half=True),
        Side("TRL + PEFT, bfloat16 defaults", _theirs_bfloat16),
        Side("TRL + PEFT, bfloat16, cuDNN attention off", _theirs_bfloat16, cudnn=False),
    )
    for size in sizes.batches:
        data = records(size * sizes.steps, sizes.longest)
        configuration = Configuration(
            max_steps=sizes.steps, seed=0, learning_rate=5e-4, max_length=1024, batch_size=size
        )
        for side in sides if device != "cpu" else sides[:2]:
            course, peak, padded = _course(side, folder, data, configuration)
            tokens = sum(course.tokens) / len(course.tokens)
            steps = sorted(course.seconds[2:] or course.seconds)
            yield Row(
                what=f"SFT, {shape.name}, {size} records a step ({tokens:.0f} tokens), {side.name}",
                unit="tokens/s",
                ours=course.speed,
                n=sizes.steps,
                spread=None,
                note=f"peak {peak / 1e9:.1f} GB; median step {1e3 * steps[len(steps) // 2]:.0f} ms; losses "
                + ", ".join(f"{loss:.2f}" for loss in course.losses[:3])
                + (f"; rows padded: {padded}" if padded else ""),
            )


def _theirs_bfloat16(model: Path, data: Sequence[Record], configuration: Configuration) -> tuple[Course, Any]:
    """TRL's SFTTrainer with its defaults on a GPU: bfloat16 weights, autocast, gradient checkpointing."""
    return theirs(model, data, configuration, dtype=torch.bfloat16)


def _course(side: Side, folder: Path, data: Sequence[Record], configuration: Configuration) -> tuple[Course, int, str]:
    """What a training logged, its peak memory on the device, and why it padded rows, if it did."""
    _clear()
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    precision = bfloat16(packed=side.packed) if side.half else nullcontext()
    with cudnn_attention(side.cudnn), precision, layouts() as padded:
        course, trained = side.train(folder, data, configuration)
    del trained
    peak = torch.cuda.max_memory_allocated() if gpu else 0
    _clear()
    return course, peak, "; ".join(filter(None, padded))


def _clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def anatomy(folder: Path, sizes: Sizes, side: Side) -> str:
    """The tables of torch's profiler over a few steps: the calls that take the most time of the host and the device."""
    from torch.profiler import ProfilerActivity, profile

    size, gpu = sizes.batches[0], torch.cuda.is_available()
    configuration = Configuration(max_steps=sizes.steps, learning_rate=5e-4, max_length=1024, batch_size=size)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as watched:
        _course(side, folder, records(sizes.steps * size, sizes.longest), configuration)
    averages = watched.key_averages()
    keys = ("self_cpu_time_total", "self_device_time_total") if gpu else ("self_cpu_time_total",)
    return "\n".join(averages.table(sort_by=key, row_limit=25, max_name_column_width=60) for key in keys)
