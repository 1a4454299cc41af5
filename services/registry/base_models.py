"""The base models that this registry accepts adapters for, pinned by revision."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from fleet_events import v1
from lora_core import base_model
from lora_core.errors import AdapterError, AdapterNotFound, CorruptAdapter, NotDescribed, UnsupportedBaseModel
from lora_core.layer_shapes import LayerShapes
from services.registry.checkpoint import CannotServe, Contents
from services.registry.inspection import Inspector

log = structlog.get_logger()

RETRY_SECONDS = 10.0
"""Between two tries to read the base models that are unavailable."""


class WrongBaseModel(Exception):
    """The adapter is for a base model that is not pinned here. `field` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BaseModelUnavailable(Exception):
    """The folder of a configured base model cannot be read now, by no fault of the caller: an operator mends it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"base model {name!r} is unavailable: {reason}")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A base model as this registry knows it, with its layers and their shapes."""

    name: str
    revision: str
    shapes: LayerShapes
    folder: Path

    @property
    def reference(self) -> v1.BaseModel:
        return v1.BaseModel(name=self.name, revision=self.revision)


class BaseModels:
    """Reads each folder once: hashing gigabytes must not hold up the start.

    A folder that cannot be read is tried again when its base model is needed, and by `read_all`.
    """

    def __init__(
        self, folders: Mapping[str, Path], inspector: Inspector | None = None, max_rank: int = base_model.SLOT_RANK
    ) -> None:
        """inspector: opens what is held against them. max_rank: what inference's slots hold."""
        self.inspector = inspector or Inspector()
        self._max_rank = max_rank
        self._folders = dict(folders)
        self._pinned: dict[str, Pinned] = {}
        self._faults: dict[str, Exception] = {}
        self._lock = asyncio.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._folders)

    async def get(self, name: str) -> Pinned:
        """The base model of this name.

        Raises:
            WrongBaseModel: no base model of this name is configured, or LoRA cannot be applied to it.
            BaseModelUnavailable: its folder holds no model, a broken one, or one whose layers were never described.
        """
        if name not in self._folders:
            known = ", ".join(sorted(self._folders))
            raise WrongBaseModel("base_model.name", f"base model {name!r} is not configured here; these are: {known}")
        async with self._lock:
            if name not in self._pinned:
                try:
                    self._pinned[name] = await asyncio.to_thread(_read, name, self._folders[name])
                except (WrongBaseModel, BaseModelUnavailable) as error:
                    self._faults[name] = error
                    raise
                self._faults.pop(name, None)
            return self._pinned[name]

    async def read_all(self) -> None:
        """Read every base model, again and again those that cannot be read, until all are."""
        while unread := [name for name in self._folders if name not in self._pinned]:
            for name in unread:
                with contextlib.suppress(WrongBaseModel, BaseModelUnavailable):  # logged, and what `ready` raises
                    await self.get(name)
            if self._faults:
                await asyncio.sleep(RETRY_SECONDS)

    async def ready(self) -> None:
        """Raises the fault of the first base model that cannot be read; not for those that are still being read."""
        for fault in self._faults.values():
            raise fault

    def check_rank(self, contents: Contents) -> None:
        """Raises CannotServe for an adapter that no slot of inference would take."""
        if contents.rank > self._max_rank:
            raise CannotServe(
                "rank",
                f"rank is {contents.rank}, expected at most {self._max_rank}, what inference's slots hold "
                "(LORAFLEET_MAX_RANK)",
            )

    async def check(self, wanted: v1.BaseModel) -> Pinned:
        """The pinned model, which must be this exact revision; raises as `get`, and WrongBaseModel for another one."""
        pinned = await self.get(wanted.name)
        if pinned.revision != wanted.revision:
            raise WrongBaseModel(
                "base_model.revision",
                f"the adapter is for {wanted.name} at revision {wanted.revision}, "
                f"but {pinned.revision} is pinned here; train it again on the pinned one",
            )
        return pinned


def _read(name: str, folder: Path) -> Pinned:
    try:
        return Pinned(name, base_model.revision(folder), base_model.target_shapes(folder), folder)
    except (AdapterError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.error("base_model_unavailable", base_model=name, folder=str(folder), reason=str(error))
        if isinstance(error, UnsupportedBaseModel):
            raise WrongBaseModel("base_model.name", str(error)) from error
        raise BaseModelUnavailable(name, _reason(error)) from error


def _reason(error: Exception) -> str:
    """What a caller may know: it names files, and no place on this machine."""
    match error:
        case NotDescribed():
            return str(error)
        case AdapterNotFound():
            return "its folder lacks config.json or *.safetensors"
        case CorruptAdapter(path=path, reason=reason):
            return f"{path.name}: {reason}"
        case _:
            return f"its folder cannot be read ({type(error).__name__})"
