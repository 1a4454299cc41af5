"""Training on a GPU: the trainer's own loop beside TRL + PEFT, in float32 and bfloat16, with peak memory."""

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_models import Shape, llama
from benchmarks.report import Row
from benchmarks.training_speed import Course, ours, theirs
from services.trainer.configuration import Configuration
from services.trainer.data.records import Kind, Record, asked
from services.trainer.training import arguments, base


@dataclass(frozen=True)
class Sizes:
    """How much is trained. batches: records of a step; longest: words of a text."""

    steps: int
    batches: tuple[int, ...]
    longest: int


def records(count: int, longest: int) -> list[Record]:
    """Instructions of uneven length: prompts of 5 to `longest` words and completions of 3 to two thirds of that."""
    words = (Path(__file__).parent.parent / "docs" / "lora_core.md").read_text().split()
    draw = random.Random(0)  # noqa: S311 - no secret

    def text(least: int, most: int) -> str:
        length = round(least * (most / least) ** draw.random())
        start = draw.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    return [
        Record(Kind.COMPLETION, asked(text(5, longest)), (text(3, max(4, longest * 2 // 3)),)) for _ in range(count)
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


@contextmanager
def bfloat16() -> Iterator[None]:
    """The trainer's loop with the base model in bfloat16 and autocast, as `precision` is to do it."""
    common, load = arguments.common, base.load

    def typed(*given: Any, **named: Any) -> dict[str, Any]:
        return common(*given, **named) | {"bf16": True}

    def loaded(folder: Path, method: str) -> Any:
        return load(folder, method).to(torch.bfloat16)

    arguments.common, base.load = typed, loaded
    try:
        yield
    finally:
        arguments.common, base.load = common, load


@contextmanager
def cudnn_attention(enabled: bool) -> Iterator[None]:
    """Whether attention may be cuDNN's, which plans each new shape anew."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def training(folder: Path, shape: Shape, sizes: Sizes, device: str) -> Iterator[Row]:
    """Tokens a second and peak memory of each side on the same records."""
    sides: tuple[tuple[str, Callable[..., Any], bool, bool], ...] = (
        ("ours, float32 (today's build)", ours, False, True),
        ("ours, bfloat16, cuDNN attention allowed", ours, True, True),
        ("ours, bfloat16, cuDNN attention off", ours, True, False),
        ("TRL + PEFT, bfloat16 defaults", _theirs_bfloat16, False, True),
        ("TRL + PEFT, bfloat16, cuDNN attention off", _theirs_bfloat16, False, False),
    )
    for size in sizes.batches:
        data = records(size * sizes.steps, sizes.longest)
        configuration = Configuration(
            max_steps=sizes.steps, seed=0, learning_rate=5e-4, max_length=1024, batch_size=size
        )
        for name, train, half, cudnn in sides:
            if device == "cpu" and (half or train is not ours):
                continue
            course, peak = _course(train, folder, data, configuration, half=half, cudnn=cudnn)
            tokens = sum(course.tokens) / len(course.tokens)
            steps = sorted(course.seconds[2:] or course.seconds)
            yield Row(
                what=f"SFT, {shape.name}, {size} records a step ({tokens:.0f} tokens), {name}",
                unit="tokens/s",
                ours=course.speed,
                n=sizes.steps,
                spread=None,
                note=f"peak {peak / 1e9:.1f} GB; median step {1e3 * steps[len(steps) // 2]:.0f} ms; losses "
                + ", ".join(f"{loss:.2f}" for loss in course.losses[:3]),
            )


def _theirs_bfloat16(model: Path, data: Sequence[Record], configuration: Configuration) -> tuple[Course, Any]:
    """TRL's SFTTrainer with its defaults on a GPU: bfloat16 weights, autocast, gradient checkpointing."""
    return theirs(model, data, configuration, dtype=torch.bfloat16)


def _course(
    train: Callable[..., Any],
    folder: Path,
    data: Sequence[Record],
    configuration: Configuration,
    *,
    half: bool,
    cudnn: bool,
) -> tuple[Course, int]:
    _clear()
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    with cudnn_attention(cudnn):
        if half:
            with bfloat16():
                course, trained = train(folder, data, configuration)
        else:
            course, trained = train(folder, data, configuration)
    del trained
    peak = torch.cuda.max_memory_allocated() if gpu else 0
    _clear()
    return course, peak


def _clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def anatomy(folder: Path, sizes: Sizes, *, half: bool, cudnn: bool) -> str:
    """The table of torch's profiler over three steps: the calls that take the most time of the host and the device."""
    from torch.profiler import ProfilerActivity, profile

    size = sizes.batches[0]
    configuration = Configuration(max_steps=4, learning_rate=5e-4, max_length=1024, batch_size=size)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as watched:
        _course(ours, folder, records(4 * size, sizes.longest), configuration, half=half, cudnn=cudnn)
    averages = watched.key_averages()
    return "\n".join(
        averages.table(sort_by=key, row_limit=25, max_name_column_width=60)
        for key in ("self_cpu_time_total", *(("self_device_time_total",) if torch.cuda.is_available() else ()))
    )
