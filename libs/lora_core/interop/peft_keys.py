"""What becomes of each key of PEFT's adapter_config.json: applied, of no effect on what is computed, or refused.

Written against `peft.LoraConfig` of peft 0.21; a test holds the table against the installed one. Keys that this version
of PEFT does not have are accepted while they are unset (null, false, empty), and refused by name otherwise.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

from lora_core.errors import UnsupportedAdapter


class Handling(StrEnum):
    """What becomes of a key."""

    APPLIED = "applied"
    """It decides what the adapter computes, and is followed."""
    KEPT = "kept"
    """Where the adapter comes from: kept as the card's metadata."""
    TRAINING = "training alone"
    """How the adapter was trained or on which layers, which the saved matrices show; any value is accepted."""
    REFUSED = "refused unless unset"
    """It would change what the adapter computes in a way that is not applied."""


KEYS: dict[str, tuple[Handling, str]] = {
    "peft_type": (Handling.APPLIED, "`LORA` alone"),
    "r": (Handling.APPLIED, "the rank; a module's matrices have its own"),
    "lora_alpha": (Handling.APPLIED, ""),
    "use_rslora": (Handling.APPLIED, "method rslora"),
    "use_dora": (Handling.APPLIED, "method dora"),
    "rank_pattern": (Handling.APPLIED, "by PEFT's rule, in linear time"),
    "alpha_pattern": (Handling.APPLIED, "by PEFT's rule, in linear time"),
    "bias": (Handling.APPLIED, "trained biases of linear layers; those of norms must be the base model's"),
    "lora_bias": (Handling.APPLIED, ""),
    "init_lora_weights": (
        Handling.APPLIED,
        "refused where it changed the base weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) and was not converted",
    ),
    "base_model_name_or_path": (Handling.KEPT, "an upload that names another model needs `base_model`"),
    "task_type": (Handling.KEPT, ""),
    "revision": (Handling.KEPT, ""),
    "peft_version": (Handling.KEPT, ""),
    "auto_mapping": (Handling.TRAINING, ""),
    "inference_mode": (Handling.TRAINING, ""),
    "target_modules": (Handling.TRAINING, "the matrices show which"),
    "exclude_modules": (Handling.TRAINING, "likewise"),
    "layers_to_transform": (Handling.TRAINING, "likewise"),
    "layers_pattern": (Handling.TRAINING, "likewise"),
    "lora_dropout": (Handling.TRAINING, ""),
    "megatron_core": (Handling.TRAINING, "read with `megatron_config` alone"),
    "qalora_group_size": (Handling.TRAINING, "read with `use_qalora` alone"),
    "loftq_config": (Handling.TRAINING, "read with `init_lora_weights` of LoftQ alone"),
    "eva_config": (Handling.TRAINING, "initial matrices"),
    "corda_config": (Handling.TRAINING, "read with `init_lora_weights` of CorDA alone"),
    "lora_ga_config": (Handling.TRAINING, "read with `init_lora_weights` of LoRA-GA alone"),
    "velora_config": (Handling.TRAINING, "another backward pass; its tensors are left out"),
    "monteclora_config": (Handling.TRAINING, "noise while it trains; its tensors are left out"),
    "ensure_weight_tying": (Handling.TRAINING, "embedding and head are saved with a matrix pair each"),
    "fan_in_fan_out": (Handling.REFUSED, "GPT-2's Conv1D"),
    "modules_to_save": (Handling.REFUSED, "fully trained modules"),
    "trainable_token_indices": (
        Handling.APPLIED,
        "as an adapter of embedding and head with a rank for each token; the base model's folder is needed",
    ),
    "target_parameters": (Handling.REFUSED, "stacked experts and other bare parameters"),
    "layer_replication": (Handling.REFUSED, "another model"),
    "megatron_config": (Handling.REFUSED, ""),
    "alora_invocation_tokens": (Handling.REFUSED, "an adapter that begins within the prompt"),
    "use_qalora": (Handling.REFUSED, "pooled inputs"),
    "use_bdlora": (Handling.REFUSED, "block-diagonal matrices"),
    "arrow_config": (Handling.REFUSED, "routing between adapters"),
    "kasa_config": (Handling.REFUSED, "it truncates the base weights"),
    "runtime_config": (Handling.TRAINING, "never saved"),
}
"""Key of LoraConfig → what becomes of it, and a remark for the table in docs/lora_core.md."""

KEPT = tuple(key for key, (handling, _) in KEYS.items() if handling is Handling.KEPT)

# These initialisations change the base weights too; without that change the saved matrices mean something else.
_BASE_CHANGING_INIT = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)


def check_keys(config: Mapping[str, object]) -> None:
    """Raises UnsupportedAdapter naming the first key that requires what is not applied."""
    if config.get("peft_type") != "LORA":
        raise UnsupportedAdapter("peft_type", config.get("peft_type"), "LORA")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and _BASE_CHANGING_INIT.search(init):
        expected = "an adapter converted to plain LoRA (PEFT: path_initial_model_for_weight_conversion)"
        raise UnsupportedAdapter("init_lora_weights", init, expected)
    for key, value in config.items():
        handling, remark = KEYS.get(key, (Handling.REFUSED, "a key that this version does not know"))
        if handling is Handling.REFUSED and not _unset(value):
            raise UnsupportedAdapter(
                key, value, f"unset: lora_core does not apply it{f' ({remark})' if remark else ''}"
            )


def _unset(value: object) -> bool:
    """Null, false, zero, empty, or an object of nothing else."""
    return all(map(_unset, value.values())) if isinstance(value, dict) else not value
