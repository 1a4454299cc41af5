"""The engine's thread has all the cores to compute with, and no other thread takes any of them away from it."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fleet_cli.stack.environment import LIBRARIES
from lora_core.compute_threads import compute_with, default_threads
from services.inference import model_opening
from services.inference.settings import InferenceSettings

pytestmark = pytest.mark.unit

SHOWN = "import sys, os, services.inference; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"


@pytest.fixture
def in_a_thread() -> Iterator[Callable[..., int]]:
    """Runs calls in a new thread; gives how many threads compute what that thread then computes."""

    def run(*calls: Callable[[], None]) -> int:
        found: list[int] = []

        def body() -> None:
            for call in calls:
                call()
            torch.randn(100_000).add_(1)
            found.append(torch.get_num_threads())

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        return found[0]

    before = default_threads()
    yield run
    torch.set_num_threads(before)


def test_one_thread_computes_with_all_it_was_given_and_later_ones_alone(in_a_thread: Callable[..., int]) -> None:
    assert in_a_thread(lambda: compute_with(3)) == 3
    assert in_a_thread() == 1
    assert in_a_thread(lambda: compute_with(2)) == 2
    assert torch.get_num_threads() == default_threads()  # of a thread that computed before


async def test_the_thread_that_loads_a_base_model_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its pool of threads would make the engine's sleep after every operation."""
    loading: list[threading.Thread] = []

    def load(*_: object) -> None:
        loading.append(threading.current_thread())
        raise FileNotFoundError("no model")

    monkeypatch.setattr(model_opening, "load_model", load)
    settings: Any = InferenceSettings.model_construct(vllm_servers=[], base_model=tmp_path)
    unused: Any = None
    with pytest.raises(FileNotFoundError):
        await model_opening.open_base_model(settings, unused, unused, "base", tmp_path)
    assert not loading[0].is_alive()


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), (dict(LIBRARIES), "5000")]
)
def test_the_service_and_the_local_fleet_set_how_long_they_spin_before_torch_is_loaded(
    given: dict[str, str], expected: str
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
    done = subprocess.run([sys.executable, "-c", SHOWN], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
