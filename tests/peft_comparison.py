"""`compared`: what PEFT's adapters on a tiny model of an architecture give in slots, held against PEFT itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from torch import nn
from transformers import PreTrainedModel

from lora_core import LoRACard, LoRAFormat
from lora_core.errors import AdapterError
from lora_core.interop import from_peft
from lora_core.layers import is_adaptable
from lora_core.model_class import class_of, load_model
from lora_core.slots.slot_bank import SlotBank
from tests.tiny_configs import tiny_config

EXACT = "exact"
KINDS = ("linear", "dora", "embedding")

_ROWS = torch.arange(5, 29).view(4, 6)
_MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}  # `peft.tuners.tuners_utils`
_MOST_PARAMETERS = 4_000_000
_CLOSE = 1e-4  # of the largest logit


@dataclass(frozen=True)
class Compared:
    """architecture: the class. linear, dora, embedding: `EXACT`, or what came instead, in words.

    without: short names of linear layers that the adapters leave out, because PEFT has something else for them.
    """

    architecture: str
    linear: str
    dora: str
    embedding: str
    without: tuple[str, ...] = ()


def compared(model_type: str, folder: Path) -> Compared:
    """Adapters of three kinds, saved by PEFT, read, stored, loaded and computed in a batch of four rows.

    The rows: this adapter, none, another adapter, this adapter. Then all four with this adapter.
    """
    try:
        base, architecture = _saved(model_type, folder / "base")
    except Exception as error:  # each configuration and model class checks in its own way
        return Compared(f"({model_type})", *[f"no tiny model: {_said(error)}"] * 3)
    try:
        served = load_model(base, torch.float32).requires_grad_(False).eval()
        bank = SlotBank(served, slots=3, max_rank=16)
    except (AdapterError, ValueError, OSError) as error:
        return Compared(architecture, *[f"not loaded: {_said(error)}"] * 3)
    without = _without(served)
    head = served.get_output_embeddings()
    linear = [
        name
        for name, module in served.named_modules()
        if isinstance(module, nn.Linear) and is_adaptable(module) and module is not head
        and name.rpartition(".")[2] not in without
    ]  # fmt: skip
    embedding = [name for name, module in served.named_modules() if module is served.get_input_embeddings()]
    try:
        other = _Adapter(base, folder / "other", 9, target_modules=linear or embedding)
    except (ValueError, TypeError, RuntimeError) as error:
        return Compared(architecture, *[f"not made by PEFT: {_said(error)}"] * 3)
    found: dict[str, str] = {}
    for kind, targets, options in (
        ("linear", linear, {}),
        ("dora", linear, {"use_dora": True}),
        ("embedding", embedding, {}),
    ):
        if not targets:
            found[kind] = "no linear layers inside the network (Conv1D is none)"
            continue
        make = partial(_Adapter, base, folder / "own", 3, target_modules=targets, **options)
        found[kind] = _outcome(make, other, served, bank)
    left_out = {name.rpartition(".")[2] for name, module in served.named_modules() if isinstance(module, nn.Linear)}
    return Compared(architecture, **found, without=tuple(sorted(without & left_out)))


def _saved(model_type: str, folder: Path) -> tuple[Path, str]:
    config = tiny_config(model_type)
    made = class_of(config)
    with torch.device("meta"):
        size = sum(weights.numel() for weights in made.from_config(config).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters at the least")
    torch.manual_seed(0)
    model = made.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(3)  # as they are drawn, layers hardly change what passes through them
    model.save_pretrained(folder)
    return folder, type(model).__name__


class _Adapter:
    """An adapter with random matrices, made and saved by PEFT; `logits` of the model that it wraps."""

    def __init__(self, base: Path, folder: Path, seed: int, **options: Any) -> None:
        model: Any = load_model(base, torch.float32)
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, **options)
        wrapped: PeftModel = get_peft_model(model, config).eval()
        with torch.no_grad():
            for name, weights in wrapped.named_parameters():
                if "lora_magnitude" in name:  # PEFT begins with the lengths that change nothing
                    weights.mul_(torch.linspace(0.6, 1.6, weights.numel()).reshape(weights.shape))
        wrapped.save_pretrained(str(folder))
        self.base, self.folder = base, folder
        self.logits = _logits(wrapped)

    def card(self) -> LoRACard:
        """As it comes out of our file format."""
        file = self.folder / "adapter.arrow"
        LoRAFormat.save(from_peft(self.folder, base_model=self.base), file)
        return LoRAFormat.load(file)


def _outcome(make: Callable[[], _Adapter], other: _Adapter, served: PreTrainedModel, bank: SlotBank) -> str:
    try:
        own = make()
    except (ValueError, TypeError, RuntimeError) as error:
        return f"not made by PEFT: {_said(error)}"
    try:
        mine, theirs = (bank.put(adapter.card()) for adapter in (own, other))
    except AdapterError as error:
        return f"refused: {_said(error)}"
    plain = _logits(served)
    wanted = torch.stack([own.logits[0], plain[1], other.logits[2], own.logits[3]])
    gap = max(
        _gap(served, bank, [[(mine, 1.0)], [], [(theirs, 1.0)], [(mine, 1.0)]], wanted),
        _gap(served, bank, [[(mine, 1.0)]] * 4, own.logits),
    )
    bank.drop(mine)
    bank.drop(theirs)
    effect = float((own.logits - plain).abs().max())
    if not effect > 10 * gap:
        return f"no effect: {effect:.1e} beside {gap:.1e}"
    return EXACT if gap <= _CLOSE * max(1.0, float(own.logits.abs().max())) else f"differs by {gap:.1e}"


def _gap(
    served: PreTrainedModel, bank: SlotBank, choices: list[list[tuple[int, float]]], wanted: torch.Tensor
) -> float:
    with bank.rows(bank.plan(choices)):
        return float((_logits(served) - wanted).abs().max())


def _logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=_ROWS, use_cache=False).logits
    return found


def _without(model: PreTrainedModel) -> set[str]:
    """PEFT turns the names of experts into stacked parameters, and refuses two layers of Mamba."""
    mapping: Mapping[str, Mapping[str, str]] = _MOE_TARGET_MODULE_MAPPING
    experts = mapping.get(_MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type, ""), {})
    refused = ("out_proj", "conv1d") if model.config.model_type in _MAMBA else ()
    return {*experts, *refused}


def _said(error: Exception) -> str:
    """The first sentence."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 120 else f"{text[:120]}…") or type(error).__name__
