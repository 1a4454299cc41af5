"""Module paths that scripts of earlier releases import."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from services.former_names import FORMER

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("former", "today"), [(former, today) for former, today in FORMER.items() if today])
def test_a_former_path_is_todays_module_and_warns(former: str, today: str) -> None:
    module = importlib.import_module(today)
    spec = module.__spec__
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=today):
        assert importlib.import_module(former) is module
    assert (module.__spec__, module.__name__) == (spec, today)


def test_a_module_comes_out_of_a_former_package_too() -> None:
    code = "from services.trainer.data import columns; from services.inference import text; print(columns.__name__, text.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["services.trainer.datasets.columns", "services.inference.detokenizer"]


def test_nothing_inside_imports_by_a_former_path() -> None:
    found = [
        (path.relative_to(ROOT), former)
        for top in ("services", "libs", "benchmarks", "tests")
        for path in (ROOT / top).rglob("*.py")
        if path.name not in ("former_names.py", "test_former_names.py")
        for former in FORMER
        if f"from {former} import" in (text := path.read_text()) or f"import {former}\n" in text
    ]
    assert found == []
