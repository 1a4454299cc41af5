"""Pausing from within: the trainer callback that saves a checkpoint on request and ends the training behind it."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from services.trainer.training.protocol import pause_wanted


class PauseOnRequest(TrainerCallback):
    """Ends training behind a checkpoint once `protocol.ask_to_pause` was called for the work folder.

    Attach it as one of the trainer's `callbacks=[..., PauseOnRequest(spec.work)]`; after `train()` its `paused` is
    whether training was ended here, with a checkpoint at `step`: then it has no result and emits `Paused(step=...)`.

    A resumed run must emit the very events that an uninterrupted run has. So nothing is validated because of a pause;
    at the end of an epoch it comes after what belongs there; and a training that ends with this step anyway is let end.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._wanted = False
        self._saved_at = -1
        self._epoch_ends = False
        self.paused = False
        self.step = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save now if a pause is wanted, unless more belongs to this step."""
        self._epoch_ends = False
        self._wanted = self._wanted or _agreed(pause_wanted(self._work))
        if self._wanted and not control.should_training_stop and not _more_follows(args, state):
            control.should_save = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save at the end of a whole epoch; undo what transformers plans for the end of one that was left."""
        self._epoch_ends = True
        if self.paused:
            control.should_save = control.should_evaluate = control.should_log = False
        elif (
            self._wanted
            and not control.should_training_stop
            and _more_follows(args, state)
            and self._saved_at != state.global_step  # its folder may be on its way to the object store
        ):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The checkpoint is written, and validation before it has decided whether training continues."""
        self._saved_at = state.global_step
        over = control.should_training_stop or state.global_step >= state.max_steps
        if self._wanted and not over and (self._epoch_ends or not _more_follows(args, state)):
            control.should_training_stop = True
            self.paused, self.step = True, state.global_step


def _more_follows(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether this step is the last of an epoch at whose end something is done."""
    by_epoch = IntervalStrategy.EPOCH in (args.eval_strategy, args.save_strategy)
    return by_epoch and float(state.epoch or 0.0).is_integer()


def _agreed(wanted: bool) -> bool:
    """What the first process sees: all must end at the same step."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return wanted
    flag = torch.tensor([wanted], dtype=torch.int32)
    if torch.cuda.is_available():
        flag = flag.cuda()
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())
