"""The training subprocess: `python -m services.trainer.training SPEC.json [--progress FILE]`.

Emits its progress as JSON lines on standard output, or with --progress in a file, where no supervisor is on the same
machine. Of several processes that share a training only the first emits. It knows files, not the bus, the database or
the object store: the service moves things in and out.
"""

import argparse
import gc
import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from fleet_kit.tracing import child_span
from lora_core.errors import AdapterError
from services.trainer import cpu_priority
from services.trainer.parent_death import claim_stdout, die_with
from services.trainer.training.protocol import TrainingRefused, TrainingSpec

DETERMINISTIC = (
    AdapterError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Exceptions that the job's own data, model or values cause. Others may pass and are tried again within limits: memory
and devices (RuntimeError, MemoryError), files (OSError), and what ends the process from outside."""
_REASON_CHARACTERS = 2000


def main(spec_file: str, progress: Path | None = None) -> int:
    """Train what the spec describes. 0 when finished, paused or refused with a reason, another status for a crash."""
    spec = TrainingSpec.model_validate_json(Path(spec_file).read_bytes())
    rank = int(os.environ.get("RANK", "0"))
    cpu_priority.lower()
    if progress:
        out: IO[str] = progress.open("a", encoding="utf-8")
    else:
        # With a launcher between, that is the parent; standard input is the supervisor's own pipe all the same.
        die_with(os.getppid() if "RANK" in os.environ else spec.supervisor)
        out = claim_stdout()

    def emit(message: BaseModel) -> None:
        if rank:
            return
        out.write(message.model_dump_json() + "\n")
        out.flush()

    if "RANK" not in os.environ:
        # transformers would spread one process over all GPUs that it sees; a packed batch is on one.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    # Imported here: it takes seconds, and the guards above must stand before. A million objects are made that all stay:
    # collecting meanwhile would take every sixth of those seconds.
    gc.disable()
    from services.trainer.training.train import CannotTrain, run

    gc.freeze()
    gc.enable()

    try:
        with nullcontext() if rank else child_span("trainer", f"train {spec.configuration.method}"):
            run(spec, emit)
    except CannotTrain as refusal:
        emit(TrainingRefused(reason=str(refusal)))
    except DETERMINISTIC as fault:
        # The same data, weights and configuration give it again: one failure that names it, not five attempts.
        traceback.print_exc()
        emit(TrainingRefused(reason=f"training failed: {type(fault).__name__}: {fault}"[:_REASON_CHARACTERS]))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("spec")
    parser.add_argument("--progress", type=Path)
    given = parser.parse_args()
    sys.exit(main(given.spec, given.progress))
