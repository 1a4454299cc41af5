"""One training from its data set to the finished adapter's files."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from transformers import AutoTokenizer, TrainerState

from lora_core.base_model import linear_shapes
from lora_core.errors import AdapterError
from services.trainer.datasets import records
from services.trainer.datasets.golden.check import golden_records
from services.trainer.datasets.golden.index import GoldenIndex
from services.trainer.datasets.records import Record
from services.trainer.datasets.worker.split import side_of
from services.trainer.training import before_after, exports
from services.trainer.training.adapter_files import write_artifact, write_peft
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import (
    TEMPLATE_DATE,
    WANTED_FROM,
    EncodedSet,
    UnfitRecord,
    UnfitTokenizer,
    prompt_ids,
)
from services.trainer.training.objectives.objective_trainer import (
    Diverged,
    Emit,
    ObjectiveTrainer,
    adapter_weights,
    load_weights,
)
from services.trainer.training.objectives.preparation import encoded, prepare
from services.trainer.training.pause import PauseOnRequest
from services.trainer.training.probe import probe
from services.trainer.training.protocol import BeforeAfter, Began, Finished, Paused, TrainingSpec
from services.trainer.training.resource_usage import Meter, hardware
from services.trainer.training.router_prompts import prompts_about_nobody
from services.trainer.training.routing_profile import make_profile
from services.trainer.training.trainer_arguments import total_steps

_TOO_LONG_ALLOWED = 0.1  # part of the samples that may be left out before the job is refused


class CannotTrain(Exception):
    """This data and this model do not fit; trying again changes nothing."""


def run(spec: TrainingSpec, emit: Emit) -> None:
    """Train what the spec describes and emit its progress; `Finished` or `Paused` comes last.

    Raises:
        CannotTrain: this data and this model do not fit; its text names the field at fault.
    """
    meter = Meter()
    torch.set_num_threads(spec.threads)
    emit = emit if int(os.environ.get("RANK", "0")) == 0 else _silently  # of several processes the first alone emits
    configuration = spec.configuration
    tokenizer: Any = AutoTokenizer.from_pretrained(spec.base_model, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _refuse_golden(spec)
    training, held_out = _sides(list(records.read(spec.dataset)), configuration)
    data, checked = _encode(tokenizer, training, configuration), _encode(tokenizer, held_out, configuration)
    if not data.rows:
        rated = f": all {data.unwanted} answers are rated below {WANTED_FROM:g}" if data.unwanted else ""
        raise CannotTrain(f"dataset_id: it has no record to train {configuration.objective} on{rated}")
    if len(data.rows) < configuration.processes:
        raise CannotTrain(
            f"hyperparameters.processes: {configuration.processes} processes cannot share {len(data.rows)} samples"
        )
    if configuration.validation_part and not checked.rows:
        raise CannotTrain(
            f"hyperparameters.validation_part: {configuration.validation_part:g} of the prompts of {len(data.rows)} "
            "samples is none; a larger part or more samples are needed"
        )
    if spec.exports and not checked.rows:
        raise CannotTrain(
            f"exports: {', '.join(spec.exports)} cannot be validated, for no sample is held out; "
            "a larger hyperparameters.validation_part or a data set with a validation split is needed"
        )
    trainer = _prepared(tokenizer, data, checked, spec, emit)
    pausing = PauseOnRequest(spec.work)
    trainer.add_callback(pausing)
    began = Began(
        total_steps=total_steps(configuration, len(data.rows)),
        resumed_step=_step_of(spec.resume_from),
        samples=len(data.rows),
        too_long=data.too_long,
        unwanted=data.unwanted,
        longest=data.longest,
        tokens=data.tokens,
        trained_tokens=data.trained_tokens,
        validation_samples=len(checked.rows),
        trainable_parameters=sum(each.numel() for each in trainer.trained.parameters() if each.requires_grad),
        padded=trainer.padded,
    )
    emit(began)
    step = _train(trainer, spec, began.total_steps)
    if pausing.paused:
        emit(Paused(step=pausing.step))
        return
    best_step, metrics = _keep_best(trainer)
    model: Any = trainer.trained
    model.eval()
    if not trainer.is_world_process_zero():
        return
    weights, config = write_peft(model, spec.work / "peft", spec.base_model_name)
    artifact, digest = _write_artifact(spec)
    emit(
        Finished(
            steps=step,
            weights=weights,
            config=config,
            artifact=artifact,
            artifact_digest=digest,
            probe=probe(model, prompt_ids(tokenizer, spec.probe_prompt), spec.probe_prompt),
            environment=_environment(torch.get_num_threads()) | hardware() | _template_date(tokenizer),
            stopped_early=step < began.total_steps,
            best_step=best_step,
            metrics=metrics,
            spoken=_before_after(model, tokenizer, held_out or training),
            exports=exports.make(
                spec.exports,
                artifact=artifact,
                peft=spec.work / "peft",
                model=model,
                validation_rows=[row[0] for row in checked.rows],
                base_model=spec.base_model,
                adapter_type=spec.adapter_type,
                work=spec.work,
            ),
            effort=meter.read(),
            example_prompts=prompts_about_nobody(training),
            routing=make_profile((record.prompt_text for record in training), spec.embedding_model, spec.work)
            if spec.embedding_model
            else None,
        )
    )


def _prepared(
    tokenizer: Any, data: EncodedSet, checked: EncodedSet, spec: TrainingSpec, emit: Emit
) -> ObjectiveTrainer:
    try:
        return prepare(
            tokenizer,
            data,
            checked,
            spec.configuration,
            base_model=spec.base_model,
            continue_from=spec.continue_from,
            work=spec.work,
            emit=emit,
        )
    except (AdapterError, ImportError, NotImplementedError, ValueError) as error:
        # What transformers, PEFT or TRL cannot do with this base model and these hyperparameters.
        reason = " ".join(str(error).split())[:1000]
        raise CannotTrain(f"base_model: {spec.base_model_name} cannot be trained like this: {reason}") from error


def _silently(message: BaseModel) -> None:
    """For processes whose messages the first one emits already."""


def _refuse_golden(spec: TrainingSpec) -> None:
    """A data set was built without what was golden then; what has become golden since is trained on neither."""
    if spec.golden is None:
        return
    held = golden_records(spec.dataset, GoldenIndex.load(spec.golden), spec.golden_threshold)
    if held is not None:
        raise CannotTrain(
            f"dataset_id: {held.found} of its {held.records} records are in golden data sets by now "
            f"({', '.join(sorted(held.by_dataset))}), expected none ({held.example}); build the data set again, which "
            "leaves them out, or request a job without dataset_id"
        )


def _sides(data: Sequence[Record], configuration: Configuration) -> tuple[list[Record], list[Record]]:
    """What is trained and what validates: the data set's own split, else the requested fraction of its prompts."""
    held_out = [record for record in data if record.split == "validation"]
    if held_out or not configuration.validation_part:
        return [record for record in data if record.split == "train"], held_out
    part, seed = configuration.validation_part, configuration.seed
    sides = {record.prompt_key: side_of(record.prompt_key, part, seed) for record in data}
    held_out = [record for record in data if sides[record.prompt_key] == "validation" and not record.synthetic]
    return [record for record in data if sides[record.prompt_key] == "train"], held_out


def _encode(tokenizer: Any, side: Sequence[Record], configuration: Configuration) -> EncodedSet:
    try:
        data = encoded(tokenizer, side, configuration)
    except UnfitTokenizer as error:
        raise CannotTrain(f"base_model: {error}") from error
    except UnfitRecord as error:
        raise CannotTrain(f"dataset_id: {error}") from error
    whole = data.too_long + len(data.rows)
    if data.too_long > _TOO_LONG_ALLOWED * whole:
        raise CannotTrain(
            f"hyperparameters.max_length: {data.too_long} of {whole} samples are longer than "
            f"{configuration.max_length} tokens; the longest has {data.longest}"
        )
    return data


def _train(trainer: ObjectiveTrainer, spec: TrainingSpec, total: int) -> int:
    """Train from the newest checkpoint to the end; returns the last step."""
    if spec.resume_from is None:
        return _steps(trainer, None)
    state = TrainerState.load_from_json(str(spec.resume_from / "trainer_state.json"))
    _recall_best(trainer, spec.resume_from, spec.best_from, state)
    if state.global_step >= total or _stopped(state):
        # Resumed after its last step, transformers would train one more.
        load_weights(trainer.trained, spec.resume_from)
        trainer.state = state
        return int(state.global_step)
    return _steps(trainer, spec.resume_from)


def _steps(trainer: ObjectiveTrainer, checkpoint: Path | None) -> int:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Diverged as error:
        raise CannotTrain(str(error)) from error
    return int(trainer.state.global_step)


def _recall_best(trainer: ObjectiveTrainer, resumed: Path, best: Path | None, state: TrainerState) -> None:
    """The best weights so far, as the process that validated them had them in memory."""
    if not state.best_global_step:
        return
    folder = resumed if state.best_global_step == state.global_step else best
    if folder is None:
        # Its upload failed, or the object is gone. Later steps compete from the start: the job is worth more than
        # the lost weights.
        state.best_metric = state.best_global_step = None
        state.save_to_json(str(resumed / "trainer_state.json"))
        return
    load_weights(trainer.trained, folder)
    trainer.best = adapter_weights(trainer.trained)


def _stopped(state: TrainerState) -> bool:
    """Whether early stopping had ended training at this checkpoint."""
    callbacks: Any = state.stateful_callbacks or {}
    control = callbacks.get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


def _keep_best(trainer: ObjectiveTrainer) -> tuple[int | None, dict[str, float]]:
    """Leave the best validated weights in the model; their step, and what they measure on the validation rows."""
    if not len(trainer.held_out):
        return None, {}
    if trainer.best is not None:
        load_weights(trainer.trained, trainer.best)
    loss, metrics = trainer.measured()
    return trainer.state.best_global_step, {"validation_loss": loss, **metrics}


def _before_after(model: Any, tokenizer: Any, data: Sequence[Record]) -> tuple[BeforeAfter, ...]:
    # The report stays when a person's records are erased: it shows none of them.
    prompts = [
        before_after.ComparedPrompt(
            record.prompt_text, record.completions[0], tuple(prompt_ids(tokenizer, record.prompt))
        )
        for record in [one for one in data if not one.subjects][: before_after.MOST_PROMPTS]
    ]
    return before_after.compare_answers(model, tokenizer, prompts)


def _step_of(folder: Path | None) -> int:
    return int(json.loads((folder / "trainer_state.json").read_bytes())["global_step"]) if folder else 0


def _write_artifact(spec: TrainingSpec) -> tuple[Path, str]:
    """The Arrow file, and its digest; what the registry would refuse is refused here."""
    path = spec.work / "artifact.arrow"
    try:
        return path, write_artifact(spec.work / "peft", path, linear_shapes(spec.base_model))
    except AdapterError as error:
        raise CannotTrain(f"the trained adapter cannot be registered: {error}") from error


def _template_date(tokenizer: Any) -> dict[str, str]:
    """The date that was written into every prompt, where the chat template writes one: serving writes the day's own."""
    dated = "strftime_now" in str(tokenizer.chat_template or "")
    return {"template_date": TEMPLATE_DATE.date().isoformat()} if dated else {}


def _environment(threads: int) -> dict[str, str]:
    libraries = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": str(threads),
        **{name: version(name) for name in libraries},
    }
