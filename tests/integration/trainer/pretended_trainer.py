"""A trainer whose trainings are pretended: its queue, its attempts and their ends are real, no model is loaded.

`PRETENDED_FOLDER` is where trainings note that they run, `PRETENDED_SECONDS` the longest time one takes. A training of
a job that another live process trains is noted in the file `twice`. With `PRETENDED_DEFECT` each one raises that instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fleet_kit.service import create_app, serve
from services.trainer import api, app
from services.trainer.handlers import handlers
from services.trainer.parts import TrainerService
from services.trainer.settings import TrainerSettings
from services.trainer.training.protocol import Began, Paused, Progress, TrainingRefused, TrainingSpec, pause_wanted

ENDED = "pretended to the end"
"""Why a job that nobody disturbed has failed."""


class PretendedLauncher:
    """Takes some time, pauses when asked to, and then refuses the data."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds

    async def launch(self, spec: TrainingSpec) -> AsyncGenerator[Progress, None]:
        with (self._folder / spec.job_id).open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with (self._folder / "twice").open("a") as twice:
                    twice.write(f"{spec.job_id}\n")
            yield Began(total_steps=1, resumed_step=0, samples=1, too_long=0, longest=1, tokens=1, trained_tokens=1)
            if defect := os.environ.get("PRETENDED_DEFECT"):
                raise RuntimeError(defect)
            ends = asyncio.get_running_loop().time() + random.uniform(self._seconds / 2, self._seconds)
            while asyncio.get_running_loop().time() < ends:
                if pause_wanted(spec.work):
                    yield Paused(step=0)
                    return
                await asyncio.sleep(0.01)
            yield TrainingRefused(reason=ENDED)


@asynccontextmanager
async def parts(service: TrainerService) -> AsyncIterator[object]:
    launcher = PretendedLauncher(Path(os.environ["PRETENDED_FOLDER"]), float(os.environ["PRETENDED_SECONDS"]))
    async with app._open(service) as opened:
        yield replace(opened, launcher=launcher)


if __name__ == "__main__":
    settings = TrainerSettings()
    serve(create_app("trainer", settings, handlers=handlers, api=api.routes, parts=parts), settings)  # type: ignore[arg-type]
