"""What compressing an adapter costs, measured: in its matrices, and in the model's output with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lora_core.array import widen
from lora_core.card import LoRACard
from lora_core.engine import ArrowEngine
from lora_core.errors import InvalidAdapter
from lora_core.format.arrow_format import LoRAFormat
from lora_core.format.arrow_writer import Storage, serialise
from lora_core.profiles import QuantisationProfile


@dataclass(frozen=True)
class AdapterDifference:
    """Another adapter's distance from the original, over every position of some prompts.

    agreement: share of positions at which both prefer the same token. divergence: mean Kullback–Leibler divergence of
    their next-token distributions, nats. logit: largest absolute difference of a logit. positions: how many.
    """

    agreement: float
    divergence: float
    logit: float
    positions: int


@dataclass(frozen=True)
class Compressed:
    """A compressed adapter's Arrow file beside the plain one, bytes of both. error: ‖difference‖ / ‖original‖."""

    path: Path
    digest: str
    storage: Storage
    bytes: int
    plain_bytes: int
    error: float
    difference: AdapterDifference

    @property
    def drift(self) -> AdapterDifference:
        """`difference` under its former name."""
        return self.difference

    @property
    def size_reduction(self) -> float:
        """1 − size / plain size."""
        return 1 - self.bytes / self.plain_bytes


def measure_difference(
    engine: ArrowEngine, original: LoRACard, other: LoRACard, prompts: Sequence[Sequence[int]]
) -> AdapterDifference:
    """Both adapters in one batch on each prompt (token ids); two free slots are needed for as long.

    Raises ValueError without prompts, SlotsFull, and InvalidAdapter for an adapter that does not fit.
    """
    if not prompts or not all(prompts):
        raise ValueError("prompts: expected at least one, and at least one token in each")
    names = (f"{original.name} (original)", f"{other.name} (other)")
    same, positions, divergence, largest = 0, 0, 0.0, 0.0
    try:
        for card, name in zip((original, other), names, strict=True):
            engine.load(card, name)
        for prompt in prompts:
            ids = torch.tensor([list(prompt)] * 2, device=engine.model.device)
            with engine.rows(names):
                theirs, ours = engine.model(input_ids=ids, use_cache=False).logits.float()
            same += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
            positions += len(prompt)
            expected, got = theirs.log_softmax(-1), ours.log_softmax(-1)
            divergence += float(torch.nn.functional.kl_div(got, expected, log_target=True, reduction="sum"))
            largest = max(largest, float((theirs - ours).abs().max()))
    finally:
        for name in names:
            engine.unload(name)
    return AdapterDifference(same / positions, divergence / positions, largest, positions)


def matrix_error(original: LoRACard, other: LoRACard) -> float:
    """Relative error of all matrices together, Frobenius norm. The cards must have the same modules and shapes."""
    squared, norm = 0.0, 0.0
    for module, weights in original.weights.items():
        for name, array in weights.arrays.items():
            mine, theirs = widen(array), widen(other.weights[module].arrays[name])
            squared += float(np.square(mine - theirs, dtype=np.float64).sum())
            norm += float(np.square(mine, dtype=np.float64).sum())
    return float(np.sqrt(squared / norm)) if norm else 0.0


def compress(
    card: LoRACard,
    path: Path | str,
    profile: QuantisationProfile,
    engine: ArrowEngine,
    prompts: Sequence[Sequence[int]],
) -> Compressed:
    """Save a card under a profile, and accept the file only if it passes on the validation prompts (token ids).

    Raises InvalidAdapter, and leaves no file, where fewer positions agree than the profile's threshold requires.
    """
    path = Path(path)
    digest = LoRAFormat.save(card, path, profile.storage)
    try:
        small = LoRAFormat.load(path)
        difference = measure_difference(engine, card, small, prompts)
        if difference.agreement < profile.quality_threshold:
            expected = (
                f"at least {profile.quality_threshold:g} ({profile.storage}): keep this adapter in a larger storage"
            )
            raise InvalidAdapter("agreement", round(difference.agreement, 4), expected)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    error = matrix_error(card, small)
    plain = len(serialise(card, "plain")[0])
    return Compressed(path, digest, profile.storage, path.stat().st_size, plain, error, difference)


Drift, measure_drift = AdapterDifference, measure_difference
"""Former names."""
