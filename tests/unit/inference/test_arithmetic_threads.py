"""Threads of the arithmetic wait briefly before they sleep, unless the environment has its own mind about it."""

import os
import subprocess
import sys

import pytest

from services.inference.model_loading import arithmetic_threads

pytestmark = pytest.mark.unit

SHOWN = "import sys, os, services.inference; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"


def test_with_8_bit_weights_a_core_is_left_to_the_event_loop_unless_someone_decided_otherwise() -> None:
    assert [arithmetic_threads(0, "int8", {}, cores) for cores in (1, 2, 8)] == [1, 1, 7]
    assert arithmetic_threads(0, "float32", {}, 8) == 0
    assert arithmetic_threads(3, "int8", {}, 2) == 3
    assert arithmetic_threads(0, "int8", {"OMP_NUM_THREADS": "2"}, 8) == 0


@pytest.mark.parametrize(("given", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_the_service_sets_how_long_they_spin_before_torch_is_loaded(given: dict[str, str], expected: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
    done = subprocess.run([sys.executable, "-c", SHOWN], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
