"""Supervised fine-tuning on completions: TRL's SFTTrainer, with the loss where the labels are."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, prepare_model_for_kbit_training, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Sampler
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from services.trainer.configuration import Configuration
from services.trainer.training.encoding import IGNORED, EncodedSet
from services.trainer.training.order import LengthGrouped
from services.trainer.training.progress import Saved, Stepped

_HEAD_ROWS = 1024  # positions whose vocabulary logits are held at once: 200 MB in fp32 for 50k tokens


class Diverged(Exception):
    """Loss or gradient is no finite number any more."""

    def __init__(self, step: int) -> None:
        super().__init__(f"hyperparameters.learning_rate: training diverged at step {step}; a lower rate is needed")


class CompletionTrainer(SFTTrainer):
    """SFTTrainer that computes vocabulary logits for completion positions only and batches by length.

    TRL 1.16 does the former only on GPUs: on a CPU its fused head projects every position, twice. The loss is the
    same mean over completion tokens.
    """

    lengths: list[int]
    tell: Callable[[Stepped], None]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:  # noqa: ARG002
        return LengthGrouped(self.lengths, self.args.train_batch_size, self.args.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 - nothing evaluates here
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean cross entropy over the labelled positions of the batch."""
        base: Any = self.accelerator.unwrap_model(model).get_base_model()
        hidden = base.base_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).last_hidden_state
        labels = inputs["labels"][:, 1:]
        scored = labels != IGNORED
        loss = _cross_entropy_sum(hidden[:, :-1][scored], base.get_output_embeddings().weight, labels[scored])
        count = scored.sum() if num_items_in_batch is None else num_items_in_batch
        self._step_tokens = int(inputs["attention_mask"].sum())
        return loss / count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002
        """One message per optimizer step; the closing summary of transformers is left out."""
        if "grad_norm" in logs:
            if not (math.isfinite(logs["loss"]) and math.isfinite(logs["grad_norm"])):
                raise Diverged(self.state.global_step)
            now = time.monotonic()
            self.tell(
                Stepped(
                    step=self.state.global_step,
                    epoch=self.state.epoch or 0.0,
                    loss=logs["loss"],
                    learning_rate=logs["learning_rate"],
                    gradient_norm=float(logs["grad_norm"]),
                    tokens=self._step_tokens,
                    seconds=now - self._since,
                )
            )
            self._since = now
        self._metrics["train"].clear()

    def start_clock(self) -> None:
        """The first step begins now."""
        self._since = time.monotonic()

    _since: float = 0.0
    _step_tokens: int = 0


def _cross_entropy_sum(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # hidden [positions, width], head [vocabulary, width], labels [positions]
    def piece(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional.linear(rows, head), wanted, reduction="sum")

    if len(labels) <= _HEAD_ROWS:
        return piece(hidden, labels)
    pieces = zip(torch.split(hidden, _HEAD_ROWS), torch.split(labels, _HEAD_ROWS), strict=True)
    return torch.stack([checkpoint(piece, rows, wanted, use_reentrant=False) for rows, wanted in pieces]).sum()


class _Clock(TrainerCallback):
    """Starts the first step's time when training really begins, and reports finished checkpoints."""

    def __init__(self, saved: Callable[[Saved], None]) -> None:
        self._saved = saved
        self.trainer: CompletionTrainer | None = None

    def on_train_begin(self, *_: object, **__: object) -> None:
        if self.trainer is not None:
            self.trainer.start_clock()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._saved(Saved(step=state.global_step, epoch=state.epoch or 0.0, folder=folder))


def load_base(folder: Path, method: str) -> PreTrainedModel:
    """The base model in fp32, or in NF4 for qlora; its own parameters are frozen."""
    quantised = (
        BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        if method == "qlora"
        else None
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, attn_implementation="sdpa", quantization_config=quantised
    )
    if quantised:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    return model


def prepare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: EncodedSet,
    configuration: Configuration,
    work: Path,
    *,
    stepped: Callable[[Stepped], None],
    saved: Callable[[Saved], None],
) -> CompletionTrainer:
    """A trainer that is ready to `train(resume_from_checkpoint=...)` and writes its checkpoints under `work`."""
    rows = [{"input_ids": list(s.input_ids), "labels": list(s.labels)} for s in data.samples]
    clock = _Clock(saved)
    trainer = CompletionTrainer(
        model=model,
        args=_arguments(configuration, work, len(rows)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_lora(configuration),
        callbacks=[clock],
    )
    clock.trainer = trainer
    trainer.lengths = [len(row["input_ids"]) for row in rows]
    trainer.tell = stepped
    return trainer


def _lora(configuration: Configuration) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=configuration.rank,
        lora_alpha=configuration.alpha,  # type: ignore[arg-type]  # PEFT takes and keeps a float
        lora_dropout=configuration.dropout,
        target_modules=list(configuration.target_modules),
        use_dora=configuration.method == "dora",
    )


def _arguments(configuration: Configuration, work: Path, samples: int) -> SFTConfig:
    by_step = configuration.checkpoint_steps is not None
    total = total_steps(configuration, samples)
    return SFTConfig(
        output_dir=str(work / "checkpoints"),
        per_device_train_batch_size=configuration.batch_size,
        num_train_epochs=configuration.epochs,
        max_steps=configuration.max_steps or -1,
        learning_rate=configuration.learning_rate,
        lr_scheduler_type=configuration.scheduler if configuration.scheduler != "constant" else "constant_with_warmup",
        warmup_steps=round(configuration.warmup_ratio * total),
        weight_decay=configuration.weight_decay,
        max_grad_norm=configuration.max_gradient_norm,
        optim="adamw_torch_fused",
        seed=configuration.seed,
        data_seed=configuration.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        fp16=False,
        gradient_checkpointing=False,
        max_length=None,  # nothing is cut: over-long samples were left out and counted
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if by_step else "epoch",
        save_steps=configuration.checkpoint_steps or 500,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        push_to_hub=False,
    )


def load_weights(trainer: CompletionTrainer, checkpoint: Path) -> None:
    """Put a checkpoint's adapter into the model, without its optimizer."""
    state = load_file(checkpoint / "adapter_model.safetensors")
    set_peft_model_state_dict(trainer.model, state)


def total_steps(configuration: Configuration, samples: int) -> int:
    """Optimizer steps of the whole training (the last batch of an epoch may be short)."""
    if configuration.max_steps is not None:
        return configuration.max_steps
    per_epoch = -(-samples // configuration.batch_size)
    return max(1, -int(-(configuration.epochs * per_epoch) // 1))
