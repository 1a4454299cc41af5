"""The options of a training on the command line, and the event that requests it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from fleet_cli.commands.options import DomainOption
from fleet_cli.files import read_object
from fleet_events import v1
from fleet_events.v1 import Bump, ExportKind, Method, Objective, PreferenceLoss, RankingLoss, Scheduler
from lorafleet.errors import BadInput

HYPERPARAMETERS = tuple(v1.Hyperparameters.model_fields)
"""Each is an option of the same name; the two differ only in their hyphens."""


_data = partial(typer.Option, rich_help_panel="Data")
_objective = partial(typer.Option, rich_help_panel="Objective")
_adapter = partial(typer.Option, rich_help_panel="Adapter")
_optimisation = partial(typer.Option, rich_help_panel="Optimisation")
_checkpoints = partial(typer.Option, rich_help_panel="Checkpoints and validation")
_exports = partial(typer.Option, rich_help_panel="Exports")
_registration = partial(typer.Option, rich_help_panel="Registration and approval")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of `train` and `lifecycle run`. Ranges are those of the event's contract, defaults the trainer's."""

    domain: DomainOption

    query: Annotated[
        str, _data("--query", help="Full-text query that selects recorded samples (default: all of the domain).")
    ] = ""
    dataset: Annotated[str, _data("--dataset", help="Id of a data set to train on (default: the query's samples).")] = (
        ""
    )
    min_rating: Annotated[
        float | None,
        _data("--min-rating", help="Minimum rating, 0 to 5; unrated samples are kept (default: any rating)."),
    ] = None
    max_length: Annotated[
        int | None, _data("--max-length", help="Longest sample in tokens; longer ones are left out (default: 512).")
    ] = None

    objective: Annotated[Objective | None, _objective("--objective", help="What to optimise (default: sft).")] = None
    beta: Annotated[
        float | None,
        _objective("--beta", help="dpo: penalty for diverging from the reference model (default: 0.1)."),
    ] = None
    preference_loss: Annotated[
        PreferenceLoss | None, _objective("--preference-loss", help="dpo: its loss (default: sigmoid).")
    ] = None
    label_smoothing: Annotated[
        float | None,
        _objective("--label-smoothing", help="dpo: fraction of preferences assumed wrong, 0 to 0.49 (default: 0)."),
    ] = None
    ranking_loss: Annotated[
        RankingLoss | None, _objective("--ranking-loss", help="ranking: its loss (default: margin).")
    ] = None
    ranking_margin: Annotated[
        float | None, _objective("--ranking-margin", help="ranking: margin in nats per token (default: 0.5).")
    ] = None

    base_model: Annotated[str, _adapter("--base-model", help="Base model by name (default: the trainer's).")] = ""
    continue_from: Annotated[
        str,
        _adapter(
            "--continue-from",
            help="Adapter to train further, by its id or the id of the job that made it (default: a new adapter).",
        ),
    ] = ""
    method: Annotated[Method | None, _adapter("--method", help="Training method (default: lora).")] = None
    rank: Annotated[int | None, _adapter("--rank", help="LoRA rank, 1 to 256 (default: 16).")] = None
    alpha: Annotated[float | None, _adapter("--alpha", help="LoRA alpha (default: twice the rank).")] = None
    dropout: Annotated[float | None, _adapter("--dropout", help="LoRA dropout, 0 to 0.9 (default: 0).")] = None
    target_modules: Annotated[
        list[str] | None,
        _adapter("--target-module", help="Layer to adapt; may be repeated (default: all linear layers)."),
    ] = None
    layers: Annotated[
        int | None, _adapter("--layers", help="Number of decoder layers to adapt, from the last (default: all).")
    ] = None

    learning_rate: Annotated[
        float | None, _optimisation("--learning-rate", help="Peak learning rate, 1e-7 to 0.1 (default: 0.0005).")
    ] = None
    scheduler: Annotated[
        Scheduler | None, _optimisation("--scheduler", help="Learning rate after the warm-up (default: linear).")
    ] = None
    warmup_ratio: Annotated[
        float | None, _optimisation("--warmup-ratio", help="Fraction of steps that warm up, 0 to 0.5 (default: 0.05).")
    ] = None
    epochs: Annotated[float | None, _optimisation("--epochs", help="Passes over the data (default: 3).")] = None
    max_steps: Annotated[
        int | None, _optimisation("--max-steps", help="Stop after this many steps (default: when the epochs are done).")
    ] = None
    batch_size: Annotated[
        int | None, _optimisation("--batch-size", help="Samples per step, over all processes (default: 8).")
    ] = None
    micro_batch_size: Annotated[
        int | None,
        _optimisation("--micro-batch-size", help="Samples of a batch computed at once (default: all of a process)."),
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        _optimisation(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Compute activations again in the backward pass, for less memory (default: no).",
        ),
    ] = None
    processes: Annotated[
        int | None, _optimisation("--processes", help="Processes that share each batch, 1 to 64 (default: 1).")
    ] = None
    weight_decay: Annotated[
        float | None, _optimisation("--weight-decay", help="Weight decay of AdamW, 0 to 1 (default: 0).")
    ] = None
    max_gradient_norm: Annotated[
        float | None, _optimisation("--max-gradient-norm", help="Scale gradients down to this norm (default: 1).")
    ] = None
    seed: Annotated[
        int | None, _optimisation("--seed", help="Seed of order, first weights and dropout (default: 0).")
    ] = None

    checkpoint_steps: Annotated[
        int | None, _checkpoints("--checkpoint-steps", help="Steps between checkpoints (default: one per epoch).")
    ] = None
    keep_checkpoints: Annotated[
        int | None,
        _checkpoints("--keep-checkpoints", help="Newest checkpoints to keep beside the best, 1 to 100 (default: 2)."),
    ] = None
    validation_part: Annotated[
        float | None,
        _checkpoints("--validation-part", help="Fraction of prompts held out for validation, 0 to 0.5 (default: 0)."),
    ] = None
    validation_steps: Annotated[
        int | None, _checkpoints("--validation-steps", help="Steps between validations (default: one per epoch).")
    ] = None
    early_stopping_patience: Annotated[
        int | None,
        _checkpoints(
            "--early-stopping-patience",
            help="Stop after this many validations without a lower loss (default: never).",
        ),
    ] = None

    exports: Annotated[
        list[ExportKind] | None,
        _exports("--export", help="Further format of the adapter; may be repeated (default: none)."),
    ] = None

    description: Annotated[
        str,
        _registration(
            "--description", help="Purpose of the adapter; queries are matched to it (default: its predecessor's)."
        ),
    ] = ""
    adapter_version: Annotated[
        str, _registration("--version", help="Version to register, X.Y.Z (default: computed).")
    ] = ""
    bump: Annotated[
        Bump | None, _registration("--bump", help="Version number to raise (default: by what changed).")
    ] = None
    golden_dataset: Annotated[
        str, _registration("--golden-dataset", help="Golden data set to judge with (default: newest of the domain).")
    ] = ""
    auto_approve_threshold: Annotated[
        float | None,
        _registration("--auto-approve-threshold", help="Minimum score for automatic approval (default: the policy's)."),
    ] = None

    priority: Annotated[
        int | None, typer.Option("--priority", help="0 to 9; waiting jobs of higher priority run first (default: 0).")
    ] = None
    config: Annotated[
        Path | None,
        typer.Option("--config", help="JSON or YAML file of hyperparameters; options override it (default: none)."),
    ] = None

    def request(self) -> v1.TrainingRequested:
        """The event that requests it; raises `BadInput` naming the option at fault."""
        chosen = {name: value for name in HYPERPARAMETERS if (value := getattr(self, name)) is not None}
        fields: dict[str, object] = {
            "domain": self.domain,
            "method": self.method or "",
            "query": self.query,
            "dataset_id": self.dataset,
            "golden_dataset_id": self.golden_dataset,
            "hyperparameters": {**self._from_file(), **chosen},
            "version": self.adapter_version,
            "bump": self.bump or "",
            "description": self.description,
            "base_model": self.base_model,
            "objective": self.objective or "",
            "continue_from": self.continue_from,
            "priority": self.priority or 0,
            "exports": self.exports or (),
        }
        if self.min_rating is not None:
            fields["min_rating"] = self.min_rating
        if self.auto_approve_threshold is not None:
            fields["auto_approve_threshold"] = self.auto_approve_threshold
        if self.dataset and self.query:
            raise BadInput("--query", "give either a query or --dataset, not both")
        try:
            return v1.TrainingRequested.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(_option_of(first["loc"]), f"{first['input']!r} is invalid: {first['msg']}") from error

    def _from_file(self) -> dict[str, object]:
        if self.config is None:
            return {}
        values = read_object(str(self.config), "--config", 'such as {"rank": 16, "epochs": 3}')
        known = v1.Hyperparameters.model_fields
        for name in values:
            if name not in known:
                raise BadInput(
                    "--config", f"{self.config}: unknown hyperparameter {name!r}; expected one of {', '.join(known)}"
                )
        try:
            v1.Hyperparameters.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadInput(
                "--config", f"{self.config}: {where} {first['input']!r} is invalid: {first['msg']}"
            ) from error
        return values


def _option_of(location: tuple[int | str, ...]) -> str:
    names = [part for part in location if isinstance(part, str)]
    name = names[-1] if names else "domain"
    # Inside an alias'd message pydantic names the wire spelling.
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    special = {
        "dataset_id": "dataset",
        "golden_dataset_id": "golden-dataset",
        "target_modules": "target-module",
        "exports": "export",
    }
    return "--" + special.get(snake, snake).replace("_", "-")
