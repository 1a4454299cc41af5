"""Further forms of a finished adapter: written, read back from their files, and measured on the validation split."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch.nn import functional

from lora_core import LoRACard, LoRAFormat
from lora_core.array import widen
from lora_core.compression_quality import matrix_error
from lora_core.interop import from_gguf, to_gguf, to_peft
from lora_core.interop.gguf import Quantisation
from lora_core.profiles import level_threshold, quality_threshold
from lora_core.quantisation import Storage
from services.trainer.training.encoding import IGNORED, EncodedSample
from services.trainer.training.export_kinds import is_gguf, level_of
from services.trainer.training.protocol import Exported

_POSITIONS = 1024  # whose vocabulary logits are held at once: 200 MB in fp32 for 50k tokens
MOST_TOKENS = 8192
"""Of validation rows that are run through the model for each form: thousands of positions separate 0.98 from 0.97; on a
processor each pass takes a minute."""
_LOSSLESS = 1e-6  # relative error of the matrices that rounding a folded factor to float32 may leave


@dataclass(frozen=True)
class Preferences:
    """What the model prefers at every completion position of some rows.

    tokens: [positions] int64, rows in their order. loss: mean cross entropy of the wanted tokens, nats.
    """

    tokens: torch.Tensor
    loss: float

    def agreement(self, other: "Preferences") -> float:
        """Share of positions at which both prefer the same token, 0 to 1."""
        return float((self.tokens == other.tokens).double().mean())


def make(
    kinds: Sequence[str],
    *,
    artifact: Path,
    peft: Path,
    model: Any,
    validation_rows: Sequence[EncodedSample],
    base_model: Path,
    adapter_type: str,
    work: Path,
) -> tuple[Exported, ...]:
    """Each requested form of the trained adapter, in the order requested, as files under `work`.

    Args:
        kinds: as `exports` of a TrainingRequested.
        artifact: the adapter's Arrow file, plain.
        peft: its PEFT folder, whose weights the model has again afterwards.
        model: the PeftModel, in evaluation mode; its adapter `default` is exchanged for each form in turn.
        validation_rows: labels other than `IGNORED` mark the positions that are measured.
        base_model: folder of the base model.
        adapter_type: chooses the quantisation profile.

    Raises:
        ValueError: no validation rows. Requests for that are refused before they are trained.
        lora_core.UnsupportedAdapter: llama.cpp has no such architecture or variant; refused beforehand likewise.
    """
    if not kinds:
        return ()
    if not validation_rows:
        raise ValueError("exports: nothing to validate them on, expected a data set with a validation split")
    original = LoRAFormat.load(artifact)
    rows = drawn(validation_rows)
    wanted = preferences(model, rows)
    made: list[Exported] = []
    try:
        for kind in dict.fromkeys(kinds):
            file = work / f"adapter-{kind}.{'gguf' if is_gguf(kind) else 'arrow'}"
            alike = _scaled_alike(_write(original, kind, file, base_model), original)
            _wear(model, alike, work / f"read-back-{kind}")
            found = preferences(model, rows)
            same_token = found.agreement(wanted)
            threshold = _threshold(kind, adapter_type)
            made.append(
                Exported(
                    kind=kind,
                    file=file,
                    same_token=same_token,
                    validation_loss=found.loss,
                    quality_threshold=threshold,
                    fit=matrix_error(original, alike) <= _LOSSLESS if threshold is None else same_token >= threshold,
                )
            )
    finally:
        _wear_file(model, peft / "adapter_model.safetensors")
    return tuple(made)


def drawn(rows: Sequence[EncodedSample]) -> Sequence[EncodedSample]:
    """Every nth row, for the smallest n that leaves about `MOST_TOKENS` tokens."""
    tokens = sum(len(row.input_ids) for row in rows)
    return rows[:: max(1, -(-tokens // MOST_TOKENS))]


def preferences(model: Any, rows: Sequence[EncodedSample]) -> Preferences:
    """What `model` (a transformers causal LM, or one in PEFT) prefers at the labelled positions of `rows`."""
    tokens: list[torch.Tensor] = []
    total, count = 0.0, 0
    for batch in _batches(rows):
        for chosen, losses in _row_preferences(model, batch):
            tokens.append(chosen)
            total += float(losses.sum())
            count += len(losses)
    return Preferences(torch.cat(tokens) if tokens else torch.empty(0, dtype=torch.long), total / max(count, 1))


def _row_preferences(model: Any, batch: Sequence[EncodedSample]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(preferred token, loss) at the labelled positions of each row, [positions] both."""
    longest = max(len(row.input_ids) for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for index, row in enumerate(batch):
        ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
        mask[index, : len(row.input_ids)] = 1
    scored = labels[:, 1:] != IGNORED
    places = scored.any(0).nonzero().flatten()
    if not len(places):
        return
    device = model.device
    with torch.inference_mode():
        answered = model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            use_cache=False,
            logits_to_keep=places.to(device),  # the head is the dearest layer: only where something is measured
        )
    logits = answered.logits.float().cpu()
    for index in range(len(batch)):
        at = scored[index, places]
        mine, wanted = logits[index, at], labels[index, 1:][places][at]
        yield mine.argmax(-1), functional.cross_entropy(mine, wanted, reduction="none")


def _batches(rows: Sequence[EncodedSample]) -> Iterator[Sequence[EncodedSample]]:
    """Rows in their order, as many together as hold no more positions than `_POSITIONS` (at least one)."""
    batch: list[EncodedSample] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row.input_ids))
        if batch and longest * (len(batch) + 1) > _POSITIONS:
            yield batch
            batch, longest = [], len(row.input_ids)
        batch.append(row)
    if batch:
        yield batch


def _write(card: LoRACard, kind: str, file: Path, base_model: Path) -> LoRACard:
    """Write the form and return what its file holds."""
    if is_gguf(kind):
        to_gguf(card, file, base_model, cast("Quantisation | None", level_of(kind)))
        return from_gguf(file, base_model)
    LoRAFormat.save(card, file, _storage(kind))
    return LoRAFormat.load(file)


def _threshold(kind: str, adapter_type: str) -> float | None:
    """The share of tokens that a rounded form must keep; None for the adapter's own numbers."""
    if not is_gguf(kind):
        return quality_threshold(adapter_type, _storage(kind))
    level = level_of(kind)
    return level_threshold(adapter_type, level) if level else None


def _scaled_alike(card: LoRACard, original: LoRACard) -> LoRACard:
    """The card under the original's rank, alpha and scaling: another factor is multiplied into B.

    The model keeps the scaling that its adapter was made with, so what a form scales otherwise must be in its matrices.
    """
    weights = {}
    for module, own in card.weights.items():
        factor = card.scaling(module) / original.scaling(module)
        same = math.isclose(factor, 1, rel_tol=1e-9)
        b = own.b if same else (widen(own.b).astype("float64") * factor).astype("float32")
        weights[module] = replace(own, b=b, alpha=original.weights[module].alpha)
    return replace(
        card,
        weights=weights,
        rank=original.rank,
        alpha=original.alpha,
        rslora=original.rslora,
        target_modules=original.target_modules,
    )


def _wear(model: Any, card: LoRACard, folder: Path) -> None:
    to_peft(card, folder)
    _wear_file(model, folder / "adapter_model.safetensors")


def _wear_file(model: Any, weights: Path) -> None:
    """Put these matrices into the model's adapter; raises ValueError for a name that the adapter has not."""
    state: Mapping[str, torch.Tensor] = load_file(weights)
    answered: Any = set_peft_model_state_dict(model, state)
    if answered.unexpected_keys:
        raise ValueError(f"{weights.name}: {answered.unexpected_keys[0]} is no part of the trained adapter")


def _storage(kind: str) -> Storage:
    if kind not in ("int8", "int4"):
        raise ValueError(f"exports: {kind!r}, expected gguf, gguf-<level>, int8 or int4")
    return cast(Storage, kind)
