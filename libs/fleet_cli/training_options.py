"""What a training may be asked with on the command line, and the event that asks for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from fleet_cli.client.errors import BadInput
from fleet_cli.commands.options import DomainOption
from fleet_cli.files import read_text
from fleet_events import v1
from fleet_events.v1 import Bump, ExportKind, Method, Objective, PreferenceLoss, RankingLoss, Scheduler

HYPERPARAMETERS = tuple(v1.Hyperparameters.model_fields)
"""Each is an option of the same name; the two differ only in their hyphens."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of `train` and `lifecycle run`. Ranges are those of the event's contract."""

    domain: DomainOption
    query: Annotated[str, typer.Option("--query", help="Full-text query that selects samples; empty takes all.")] = ""
    dataset: Annotated[str, typer.Option("--dataset", help="Id of an existing data set instead of a query.")] = ""
    golden_dataset: Annotated[
        str, typer.Option("--golden-dataset", help="Golden data set to judge with (default: newest of the domain).")
    ] = ""
    method: Annotated[Method | None, typer.Option("--method", help="Training method (default: lora).")] = None
    rank: Annotated[int | None, typer.Option("--rank", help="LoRA rank, 1 to 256.")] = None
    auto_approve_threshold: Annotated[
        float | None,
        typer.Option("--auto-approve-threshold", help="Score from which no human is asked (default: the policy's)."),
    ] = None
    alpha: Annotated[float | None, typer.Option("--alpha", help="LoRA alpha (default: twice the rank).")] = None
    dropout: Annotated[float | None, typer.Option("--dropout", help="LoRA dropout, 0 to 0.9.")] = None
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak, 1e-7 to 0.1.")] = None
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the data.")] = None
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="End after so many steps.")] = None
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Samples a step.")] = None
    max_length: Annotated[int | None, typer.Option("--max-length", help="Longest sample in tokens.")] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None
    warmup_ratio: Annotated[float | None, typer.Option("--warmup-ratio", help="0 to 0.5.")] = None
    scheduler: Annotated[Scheduler | None, typer.Option("--scheduler", help="Course of the learning rate.")] = None
    target_modules: Annotated[
        list[str] | None, typer.Option("--target-module", help="Projection to adapt; may be given again.")
    ] = None
    checkpoint_steps: Annotated[
        int | None, typer.Option("--checkpoint-steps", help="Steps between checkpoints (default: one an epoch).")
    ] = None
    keep_checkpoints: Annotated[
        int | None, typer.Option("--keep-checkpoints", help="Newest checkpoints kept beside the best, 1 to 100.")
    ] = None
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="0 to 1.")] = None
    max_gradient_norm: Annotated[
        float | None, typer.Option("--max-gradient-norm", help="Gradients are scaled down to this norm.")
    ] = None
    validation_part: Annotated[
        float | None, typer.Option("--validation-part", help="Part of the prompts held out to validate, 0 to 0.5.")
    ] = None
    validation_steps: Annotated[
        int | None, typer.Option("--validation-steps", help="Steps between validations (default: one an epoch).")
    ] = None
    early_stopping_patience: Annotated[
        int | None,
        typer.Option("--early-stopping-patience", help="End after so many validations without a better loss."),
    ] = None
    beta: Annotated[float | None, typer.Option("--beta", help="dpo: how strongly it is held to its start.")] = None
    preference_loss: Annotated[
        PreferenceLoss | None, typer.Option("--preference-loss", help="dpo: its loss (default: sigmoid).")
    ] = None
    label_smoothing: Annotated[
        float | None,
        typer.Option("--label-smoothing", help="dpo: part of the preferences taken to be wrong, 0 to 0.49."),
    ] = None
    ranking_loss: Annotated[
        RankingLoss | None, typer.Option("--ranking-loss", help="ranking: its loss (default: margin).")
    ] = None
    ranking_margin: Annotated[
        float | None, typer.Option("--ranking-margin", help="ranking: margin in nats per token.")
    ] = None
    processes: Annotated[int | None, typer.Option("--processes", help="Processes that share each batch, 1 to 64.")] = (
        None
    )
    layers: Annotated[int | None, typer.Option("--layers", help="Last layers to adapt (default: all).")] = None
    micro_batch_size: Annotated[
        int | None, typer.Option("--micro-batch-size", help="Records of a batch computed at once (default: all).")
    ] = None
    objective: Annotated[Objective | None, typer.Option("--objective", help="What it learns from (default: sft).")] = (
        None
    )
    continue_from: Annotated[
        str, typer.Option("--continue-from", help="Adapter to train further: its id, or that of the job that made it.")
    ] = ""
    priority: Annotated[
        int | None, typer.Option("--priority", help="0 to 9; of two waiting jobs the higher goes first.")
    ] = None
    exports: Annotated[
        list[ExportKind] | None, typer.Option("--export", help="Further form of the adapter; may be given again.")
    ] = None
    config: Annotated[
        Path | None, typer.Option("--config", help="JSON file of hyperparameters; options win over it.")
    ] = None
    min_rating: Annotated[float | None, typer.Option("--min-rating", help="Only samples rated so, 0 to 5.")] = None
    adapter_version: Annotated[str, typer.Option("--version", help="Register as exactly X.Y.Z.")] = ""
    bump: Annotated[Bump | None, typer.Option("--bump", help="Part of the version to raise.")] = None
    description: Annotated[str, typer.Option("--description", help="What it is for; queries are matched to it.")] = ""
    base_model: Annotated[str, typer.Option("--base-model", help="Base model by name.")] = ""

    def request(self) -> v1.TrainingRequested:
        """The event that asks for it; raises `BadInput` naming the option at fault."""
        chosen = {name: value for name in HYPERPARAMETERS if (value := getattr(self, name)) is not None}
        asked: dict[str, object] = {
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
            asked["min_rating"] = self.min_rating
        if self.auto_approve_threshold is not None:
            asked["auto_approve_threshold"] = self.auto_approve_threshold
        if self.dataset and self.query:
            raise BadInput("--query", "give either a query or --dataset, not both")
        try:
            return v1.TrainingRequested.model_validate(asked)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(_option_of(first["loc"]), f"{first['input']!r} is refused: {first['msg']}") from error

    def _from_file(self) -> dict[str, object]:
        if self.config is None:
            return {}
        text = read_text(str(self.config), "--config")
        try:
            values = json.loads(text)
        except ValueError as error:
            raise BadInput("--config", f"{self.config} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise BadInput("--config", f'{self.config} must be an object such as {{"rank": 16, "epochs": 3}}')
        known = v1.Hyperparameters.model_fields
        for name in values:
            if name not in known:
                raise BadInput(
                    "--config", f"{self.config}: {name!r} is no hyperparameter; known are {', '.join(known)}"
                )
        try:
            v1.Hyperparameters.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadInput(
                "--config", f"{self.config}: {where} {first['input']!r} is refused: {first['msg']}"
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
