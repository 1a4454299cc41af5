"""Training steps of ours beside TRL + PEFT as they come, on the same records, and where the time of a step goes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import BaseModel

from benchmarks.report import Row, Samples
from lora_core.base_model import linear_shapes
from services.trainer.datasets.records import Record
from services.trainer.training.configuration import Configuration
from services.trainer.training.objectives.preparation import encoded, prepare
from services.trainer.training.protocol import Stepped
from services.trainer.training.targets import default_targets

WARM_UP = 2  # steps at the beginning that no one counts


@dataclass
class Course:
    """What a training logged: a loss, its tokens without padding and its seconds for each step."""

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Tokens of records a second, the first steps left out. A shared prefix counts in every record it begins."""
        return sum(self.tokens[WARM_UP:]) / sum(self.seconds[WARM_UP:])


def ours(model: Path, data: Sequence[Record], configuration: Configuration) -> tuple[Course, Any]:
    """A training by the trainer service's own loop; its course and the trained model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    course = Course()

    def emit(message: BaseModel) -> None:
        if isinstance(message, Stepped):
            course.losses.append(message.loss)
            course.tokens.append(message.tokens)
            course.seconds.append(message.seconds)

    with TemporaryDirectory() as folder:
        rows, none = encoded(tokenizer, data, configuration), encoded(tokenizer, [], configuration)
        trainer = prepare(
            tokenizer,
            rows,
            none,
            replace(configuration, checkpoint_steps=10_000),
            base_model=model,
            continue_from=None,
            work=Path(folder),
            emit=emit,
        )
        trainer.args.save_strategy = "no"
        trainer.train()
        return course, trainer.trained


def theirs(
    model: Path, data: Sequence[Record], configuration: Configuration, dtype: torch.dtype = torch.float32
) -> tuple[Course, Any]:
    """The same by TRL's SFTTrainer and PEFT at their defaults, but for what this machine cannot or need not do.

    Those are: no bfloat16 and no gradient checkpointing in float32, and the same hyperparameters as ours. Rows are
    padded to the longest of a random batch; prompt tokens have no loss (TRL's default for prompts and completions).
    """
    half = dtype == torch.bfloat16
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    course = Course()

    class Watched(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            course.tokens.append(int(inputs["attention_mask"].sum()))
            return super().training_step(model, inputs, *rest, **named)  # type: ignore[no-untyped-call]

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            course.seconds.append(time.monotonic() - self.began)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs:
                course.losses.append(logs["loss"])

    talks = [
        {
            "prompt": [{"role": "user", "content": record.prompt_text}],
            "completion": [{"role": "assistant", "content": record.completions[0]}],
        }
        for record in data
    ]
    with TemporaryDirectory() as folder:
        trainer = Watched(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=dtype, local_files_only=True),
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=configuration.batch_size,
                max_steps=configuration.max_steps or -1,
                learning_rate=configuration.learning_rate,
                lr_scheduler_type=configuration.scheduler,
                warmup_steps=round(configuration.warmup_ratio * (configuration.max_steps or 0)),
                seed=configuration.seed,
                use_cpu=not torch.cuda.is_available(),
                bf16=half,
                gradient_checkpointing=half,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(talks),
            processing_class=AutoTokenizer.from_pretrained(model, local_files_only=True),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=configuration.rank,
                lora_alpha=int(configuration.alpha),
                target_modules=list(default_targets(linear_shapes(model))),
            ),
            callbacks=[Clock()],
        )
        trainer.train()
        return course, trainer.model


def held_out_loss(trained: Any, model: Path, data: Sequence[Record], configuration: Configuration) -> float:
    """Mean cross entropy per completion token, computed plainly, a record at a time."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    trained.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for (sample,) in encoded(tokenizer, data, configuration).rows:
            logits = trained(input_ids=torch.tensor([sample.input_ids])).logits[0, :-1]
            labels = torch.tensor(sample.labels[1:])
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += sample.trained_tokens
    return total / count


def compare(
    what: str, model: Path, data: Sequence[Record], held_out: Sequence[Record], steps: int, seeds: int
) -> list[Row]:
    """Speed and loss of both, alternating, a training of `steps` steps for each seed."""
    mine: list[float] = []
    other: list[float] = []
    losses: tuple[list[float], list[float]] = ([], [])
    for seed in range(seeds):
        configuration = Configuration(max_steps=steps, seed=seed, learning_rate=5e-4, max_length=1024)
        for train, speeds, kept in ((ours, mine, losses[0]), (theirs, other, losses[1])):
            course, trained = train(model, data, configuration)
            speeds.append(course.speed)
            kept.append(held_out_loss(trained, model, held_out, configuration))
            del trained
    ratio = Samples(tuple(a / b for a, b in zip(mine, other, strict=True)))
    apart = abs(Samples(tuple(losses[0])).median - Samples(tuple(losses[1])).median)
    noise = max(max(each) - min(each) for each in losses)
    shown = "; ".join(
        f"{name} {', '.join(f'{value:.3f}' for value in each)}"
        for name, each in zip(("ours", "TRL"), losses, strict=True)
    )
    return [
        Row(
            what=f"training speed, {what}",
            unit="tokens/s",
            ours=Samples(tuple(mine)).median,
            peers={"TRL + PEFT": Samples(tuple(other)).median},
            ratio=ratio.median,
            ask="at least 1.5 ×",
            met=ratio.median >= 1.5,
            n=seeds,
            spread=ratio.spread,
            note=f"{steps} steps of 8 records; spread is that of the ratio",
        ),
        Row(
            what=f"held-out loss after the same steps, {what}",
            unit="nats/token",
            ours=Samples(tuple(losses[0])).median,
            peers={"TRL + PEFT": Samples(tuple(losses[1])).median},
            ratio=Samples(tuple(losses[0])).median / Samples(tuple(losses[1])).median,
            ask="within noise of seeds",
            met=apart <= noise if seeds > 1 else None,
            n=seeds,
            note=f"per seed: {shown}",
        ),
    ]


def anatomy(model: Path, data: Sequence[Record]) -> list[Row]:
    """Where a step's time goes, and how far its arithmetic is from what this machine multiplies at best."""
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoTokenizer

    configuration = Configuration(max_steps=2, max_length=1024)
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as watched:
        ours(model, data, configuration)
    spent = {event.key: event.self_cpu_time_total / 1e6 for event in watched.key_averages()}
    flops = sum(event.flops for event in watched.key_averages())
    whole = sum(spent.values())
    kinds = {
        "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
        "attention": (
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
        ),
        "optimizer": ("aten::_fused_adamw_",),
    }
    parts = {name: sum(spent.get(key, 0.0) for key in keys) / whole for name, keys in kinds.items()}
    parts["the rest (norms, activations, copies, Python)"] = 1 - sum(parts.values())
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    rows = encoded(tokenizer, data, configuration)
    best = _best_product()
    products = sum(spent.get(key, 0.0) for key in kinds["matrix products"])
    return [
        Row(
            what="arithmetic of the matrix products in training steps",
            unit="GFLOP/s",
            ours=flops / products / 1e9,
            limit=best / 1e9,
            ratio=flops / products / best,
            note=f"limit: a 2048 × 2048 product here; longest record {rows.longest} tokens",
        ),
        *(Row(what=f"share of a step: {name}", unit="%", ours=100 * share) for name, share in parts.items()),
    ]


def _best_product() -> float:
    """Floating point operations a second of a large float32 product, the best of some."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best
