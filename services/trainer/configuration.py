"""What a job trains with: every default and every check in one place."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from fleet_events import v1

DECODER_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
METHODS = ("lora", "rslora", "dora", "qlora")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request: the field, the value it has, and what would be right."""

    field: str
    value: object
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value!r} is refused, expected {self.expected}"


class InvalidRequest(Exception):
    """A job that can never succeed as it was asked for. Carries all its faults, not the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True)
class Configuration:
    """Everything that decides what training does to a data set and a base model.

    Ranges are those of `Hyperparameters` in proto-schemas/lorafleet/events/v1/training.proto; `epochs` counts
    passes over the data and is overruled by `max_steps`; `warmup_ratio` is the part of all steps in which the learning
    rate rises; `checkpoint_steps` and `validation_steps` of None mean once per epoch; `batch_size` is that of all
    `processes` together; `layers` counts the adapted decoder layers from the last, None adapts all;
    `micro_batch_size` is what each process computes at once of its part of a batch, None all of it.
    """

    objective: str = "sft"
    method: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = DECODER_PROJECTIONS
    learning_rate: float = 5e-4
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 8
    max_length: int = 512
    seed: int = 0
    warmup_ratio: float = 0.05
    scheduler: str = "linear"
    checkpoint_steps: int | None = None
    keep_checkpoints: int = 2
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    validation_part: float = 0.0
    validation_steps: int | None = None
    early_stopping_patience: int | None = None
    beta: float = 0.1
    preference_loss: str = "sigmoid"
    label_smoothing: float = 0.0
    ranking_loss: str = "margin"
    ranking_margin: float = 0.5
    processes: int = 1
    layers: int | None = None
    micro_batch_size: int | None = None
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


def resolve(method: str, asked: v1.Hyperparameters | None, objective: str = "") -> Configuration:
    """The asked values, with defaults where nothing was asked. alpha defaults to twice the rank."""
    given = asked.model_dump(by_alias=False, exclude_none=True) if asked else {}
    targets = tuple(given.pop("target_modules", ())) or DECODER_PROJECTIONS
    given.setdefault("alpha", 2.0 * given.get("rank", Configuration.rank))
    return Configuration(
        objective=objective or "sft", method=method or "lora", target_modules=tuple(sorted(set(targets))), **given
    )


def layer_of(module: str) -> int | None:
    """The decoder layer that a module's full name says it is in."""
    numbered = re.search(r"(?:^|\.)(\d+)\.", module)
    return int(numbered[1]) if numbered else None


def layer_count(modules: Iterable[str]) -> int:
    """Decoder layers that hold these modules, by their full names."""
    return len({layer_of(name) for name in modules} - {None})


def check(
    configuration: Configuration, shapes: Mapping[str, tuple[int, int]], *, quantisation: bool
) -> tuple[Fault, ...]:
    """All faults that only show beside the base model and this machine.

    Args:
        shapes: linear modules of the base model, full name → (out, in).
        quantisation: whether bitsandbytes can be imported here.
    """
    faults: list[Fault] = []
    known: dict[str, int] = {}
    for name, (rows, columns) in shapes.items():
        short = name.rpartition(".")[2]
        known[short] = min(known.get(short, rows), rows, columns)
    # TRL scores completions with the head's own weight, so an adapter there would never be trained.
    trainable = sorted(name for name in known if name != "lm_head")
    unknown = sorted(set(configuration.target_modules) - set(trainable))
    if unknown:
        faults.append(
            Fault(
                "hyperparameters.target_modules", unknown, f"linear modules of the base model: {', '.join(trainable)}"
            )
        )
    largest = min((known[name] for name in configuration.target_modules if name in trainable), default=None)
    if largest is not None and configuration.rank > largest:
        faults.append(
            Fault(
                "hyperparameters.rank",
                configuration.rank,
                f"at most {largest}, the smaller side of the smallest target module",
            )
        )
    present = layer_count(shapes)
    if configuration.layers is not None and configuration.layers > present:
        faults.append(
            Fault("hyperparameters.layers", configuration.layers, f"at most {present}, the decoder layers there are")
        )
    if configuration.method == "qlora" and not quantisation:
        faults.append(
            Fault("method", "qlora", "lora: qlora needs the package bitsandbytes, which is not installed here")
        )
    return tuple(faults)
