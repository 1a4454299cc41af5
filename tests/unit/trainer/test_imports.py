"""What the service process loads."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "accelerate",
    "pyarrow",
    "jinja2",
    "kubernetes",
    "polars",
    "rensa",
)


def test_the_service_process_never_imports_what_only_training_needs() -> None:
    program = f"import sys, services.trainer.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
