"""What a job trains with: every default and every check in one place."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fleet_events import v1
from lora_core.base_model import SLOT_RANK
from lora_core.layer_shapes import LayerShapes
from services.trainer.faults import Fault
from services.trainer.training.targets import chosen, decoder_layers, default_targets, trainable, why_not


@dataclass(frozen=True)
class Configuration:
    """Everything that decides what training does to a data set and a base model.

    Ranges are those of `Hyperparameters` in proto-schemas/lorafleet/events/v1/training.proto; `epochs` counts
    passes over the data and is overruled by `max_steps`; `warmup_ratio` is the part of all steps in which the learning
    rate rises; `checkpoint_steps` and `validation_steps` of None mean once per epoch; `batch_size` is that of all
    `processes` together; `target_modules` are short names of layers, none stands for all linear layers of the base
    model's decoder; `layers` counts the adapted decoder layers from the last, None adapts all;
    `micro_batch_size` is what each process computes at once of its part of a batch, None all of it;
    `gradient_checkpointing` computes each layer again in the backward pass and keeps its input alone.
    """

    objective: v1.Objective = v1.Objective.SFT
    method: v1.Method = v1.Method.LORA
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    learning_rate: float = 5e-4
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 8
    max_length: int = 512
    seed: int = 0
    warmup_ratio: float = 0.05
    scheduler: v1.Scheduler = v1.Scheduler.LINEAR
    checkpoint_steps: int | None = None
    keep_checkpoints: int = 2
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    validation_part: float = 0.0
    validation_steps: int | None = None
    early_stopping_patience: int | None = None
    beta: float = 0.1
    preference_loss: v1.PreferenceLoss = v1.PreferenceLoss.SIGMOID
    label_smoothing: float = 0.0
    ranking_loss: v1.RankingLoss = v1.RankingLoss.MARGIN
    ranking_margin: float = 0.5
    processes: int = 1
    layers: int | None = None
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    continue_from: str = ""
    """SHA-256 of the adapter weights that training begins from; empty for a new adapter."""

    def values(self) -> dict[str, object]:
        """Every field by its name."""
        return asdict(self)

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.values(), sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """Digest of `canonical()`, the configuration's link in the digest chain."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def resolve(
    method: str, requested: v1.Hyperparameters | None, objective: str = "", targets: tuple[str, ...] = ()
) -> Configuration:
    """The requested values, with defaults for the others. alpha defaults to twice the rank.

    targets: what is adapted without requested target modules, see `services.trainer.training.targets.default_targets`.
    """
    given = requested.model_dump(by_alias=False, exclude_none=True) if requested else {}
    wanted = tuple(given.pop("target_modules", ())) or targets
    given.setdefault("alpha", 2.0 * given.get("rank", Configuration.rank))
    return Configuration(
        objective=v1.Objective(objective) if objective else Configuration.objective,
        method=v1.Method(method) if method else Configuration.method,
        target_modules=tuple(sorted(set(wanted))),
        **given,
    )


def check(
    configuration: Configuration, layers: LayerShapes, *, quantisation: bool, max_rank: int = SLOT_RANK
) -> tuple[Fault, ...]:
    """All faults that only show beside the base model, this machine and the fleet that will serve the adapter.

    Args:
        layers: linear modules of the base model, see `lora_core.base_model.linear_shapes`.
        quantisation: whether bitsandbytes can be imported here.
        max_rank: rank that inference's slots hold.
    """
    return tuple(_faults(configuration, layers, quantisation, max_rank))


def _faults(configuration: Configuration, layers: LayerShapes, quantisation: bool, max_rank: int) -> Iterator[Fault]:
    packed = layers.description.quantisation if layers.description else ""
    if packed:
        expected = (
            "the folder of the model in float32, float16 or bfloat16: this one is quantised, and training needs the "
            "weights themselves (method qlora quantises them by itself)"
        )
        yield Fault("base_model", f"quantization_config {packed}", expected)
    yield from _target_faults(configuration, layers)
    if configuration.rank > max_rank:
        expected = f"at most {max_rank}, what inference's slots hold (LORAFLEET_MAX_RANK)"
        yield Fault("hyperparameters.rank", configuration.rank, expected)
    present = len(decoder_layers(layers))
    if configuration.layers is not None and configuration.layers > present:
        yield Fault(
            "hyperparameters.layers",
            configuration.layers,
            f"at most {present}, the number of decoder layers of the base model",
        )
    if configuration.method == "qlora" and not quantisation:
        yield Fault("method", "qlora", "lora: qlora needs the package bitsandbytes, which is not installed here")


def _target_faults(configuration: Configuration, layers: LayerShapes) -> Iterator[Fault]:
    fit = trainable(layers)
    field, requested = "hyperparameters.target_modules", configuration.target_modules
    unknown = [target for target in requested if target not in fit]
    if unknown:
        reasons = "; ".join(f"{target} {why_not(layers, target)}" for target in unknown)
        expected = f"linear modules of the base model: {', '.join(sorted(fit)) or 'it has none'} ({reasons})"
        yield Fault(field, unknown, expected)
    elif not requested and not default_targets(layers):
        kinds = sorted(set(layers.description.others.values())) if layers.description else []
        expected = f"another base model: the decoder of this one has no linear layers (it has {', '.join(kinds)})"
        yield Fault(field, [], expected)
    elif configuration.layers is not None and not chosen(layers, requested, configuration.layers):
        expected = f"more: the last {configuration.layers} decoder layers have none of {', '.join(requested)}"
        yield Fault("hyperparameters.layers", configuration.layers, expected)
