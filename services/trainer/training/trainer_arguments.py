"""A configuration as the arguments of transformers' trainers."""

from pathlib import Path
from typing import Any

import torch

from services.trainer.training.configuration import Configuration


def common(configuration: Configuration, work: Path, samples: int, *, validated: bool) -> dict[str, Any]:
    """Arguments that every objective's trainer gets; checkpoints go below `work`."""
    total = total_steps(configuration, samples)
    return {
        "output_dir": str(work / "checkpoints"),
        "per_device_train_batch_size": configuration.batch_size // configuration.processes,
        "num_train_epochs": configuration.epochs,
        "max_steps": configuration.max_steps or -1,
        "learning_rate": configuration.learning_rate,
        "lr_scheduler_type": configuration.scheduler
        if configuration.scheduler != "constant"
        else "constant_with_warmup",
        "warmup_steps": round(configuration.warmup_ratio * total),
        "weight_decay": configuration.weight_decay,
        "max_grad_norm": configuration.max_gradient_norm,
        "optim": "adamw_torch_fused",
        "seed": configuration.seed,
        "data_seed": configuration.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,  # `preparation` enables it: TRL would also ask for gradients of embeddings
        "gradient_checkpointing_kwargs": {"use_reentrant": False},  # TRL's DPO disables and enables it again with these
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if configuration.checkpoint_steps else "epoch",
        "save_steps": configuration.checkpoint_steps or 500,
        "eval_strategy": "no" if not validated else "steps" if configuration.validation_steps else "epoch",
        "eval_steps": configuration.validation_steps,
        "metric_for_best_model": "eval_loss" if validated else None,
        "greater_is_better": False if validated else None,
        "restore_callback_states_from_checkpoint": True,
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "push_to_hub": False,
    }


def total_steps(configuration: Configuration, samples: int) -> int:
    """Optimizer steps of the whole training (the last batch of an epoch may be short)."""
    if configuration.max_steps is not None:
        return configuration.max_steps
    per_epoch = -(-samples // configuration.batch_size)
    return max(1, -int(-(configuration.epochs * per_epoch) // 1))
