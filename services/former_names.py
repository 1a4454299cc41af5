"""Former import paths of modules that moved: they still work, with a DeprecationWarning.

A row goes when a release has warned of it. Inside the project nothing imports by these names.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["FORMER", "install"]

_TRAINER, _INFERENCE, _EVALUATOR = "services.trainer", "services.inference", "services.evaluator"
FORMER = {
    f"{_EVALUATOR}.comparison": "fleet_statistics.paired",
    f"{_EVALUATOR}.statistics": "fleet_statistics.intervals",
    f"{_TRAINER}.configuration": f"{_TRAINER}.training.configuration",
    f"{_TRAINER}.data": None,
    f"{_TRAINER}.data.build": f"{_TRAINER}.datasets.worker.__main__",
    f"{_TRAINER}.data.build_spec": f"{_TRAINER}.datasets.worker.spec",
    f"{_TRAINER}.data.columns": f"{_TRAINER}.datasets.columns",
    f"{_TRAINER}.data.filters": f"{_TRAINER}.datasets.filters",
    f"{_TRAINER}.data.records": f"{_TRAINER}.datasets.records",
    f"{_TRAINER}.training.progress": f"{_TRAINER}.training.protocol",
    f"{_TRAINER}.training.run": f"{_TRAINER}.training.train",
    f"{_INFERENCE}.api": f"{_INFERENCE}.http.api",
    f"{_INFERENCE}.hosted": f"{_INFERENCE}.base_models",
    f"{_INFERENCE}.http_errors": f"{_INFERENCE}.http.error_responses",
    f"{_INFERENCE}.text": f"{_INFERENCE}.detokenizer",
    f"{_INFERENCE}.vocabulary": f"{_INFERENCE}.tokenizer",
}
"""Former path → today's. None: a package whose modules have rows of their own."""


class _Finder(MetaPathFinder, Loader):
    """Imports today's module under its former path: the same object under both."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=FORMER[fullname] is None) if fullname in FORMER else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        today = FORMER[spec.name]
        if today is None:
            return None
        warnings.warn(f"{spec.name} is {today} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(today)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The import system has put the former path's spec on it: give it its own back."""
        name = module.__spec__.name if module.__spec__ else ""
        if name in self._specs:
            module.__spec__ = self._specs.pop(name)

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}


def install() -> None:
    """Let the former paths be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before a folder that an update left empty is taken for a package
