"""Training on a GPU, where there is one: the losses of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.datasets.records import Record
from services.trainer.training.protocol import Finished, Progress, Stepped, Validated
from tests.integration.trainer.objectives import QUICK, completions, job, preferences, rankings
from tests.integration.trainer.test_training_process import train

pytestmark = [
    pytest.mark.integration,
    pytest.mark.heavy,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or a torch that was built without"),
]


@pytest.mark.parametrize(("objective", "make"), [("sft", completions), ("dpo", preferences), ("ranking", rankings)])
async def test_a_gpu_trains_what_the_processor_would(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    make: Callable[..., list[Record]],
) -> None:
    data = [*make(18), *make(6, "validation")]
    configuration = replace(QUICK, objective=objective, max_steps=6, validation_steps=3)
    messages: dict[str, list[Progress]] = {}
    for visible in ("", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        messages[visible] = await train(job(tiny_model, tmp_path / f"on-{visible}", configuration, data))
    used = ["gpu" in one.environment for side in messages.values() for one in of(Finished, side)]
    assert used == [False, True]
    for kind in (Stepped, Validated):
        on_processor, on_gpu = ([one.loss for one in of(kind, side)] for side in messages.values())
        assert on_gpu == pytest.approx(on_processor, rel=2e-3)
        assert len(on_gpu) >= 2


def of(kind: type[Any], messages: list[Progress]) -> list[Any]:
    return [one for one in messages if isinstance(one, kind)]
