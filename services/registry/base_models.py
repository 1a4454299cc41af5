"""The base models that this registry accepts adapters for, pinned by revision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_events import v1
from lora_core import base_model
from lora_core.description import LayerShapes
from lora_core.errors import UnsupportedBaseModel
from services.registry.checkpoint import CannotServe, Contents
from services.registry.inspection import Inspector


class WrongBaseModel(Exception):
    """The adapter is for a base model that is not pinned here. `field` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Pinned:
    """A base model as this registry knows it, with its layers and their shapes."""

    name: str
    revision: str
    shapes: LayerShapes

    @property
    def reference(self) -> v1.BaseModel:
        return v1.BaseModel(name=self.name, revision=self.revision)


class BaseModels:
    """Reads each folder once, when it is first asked for: hashing gigabytes must not hold up the start."""

    def __init__(
        self, folders: Mapping[str, Path], inspector: Inspector | None = None, max_rank: int = base_model.SLOT_RANK
    ) -> None:
        """inspector: opens what is held against them. max_rank: what inference's slots hold."""
        self.inspector = inspector or Inspector()
        self._max_rank = max_rank
        self._folders = dict(folders)
        self._pinned: dict[str, Pinned] = {}
        self._lock = asyncio.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._folders)

    async def get(self, name: str) -> Pinned:
        """The base model of this name; raises WrongBaseModel, or AdapterNotFound for a folder that holds none."""
        if name not in self._folders:
            known = ", ".join(sorted(self._folders))
            raise WrongBaseModel("base_model.name", f"base model {name!r} is not served here; these are: {known}")
        async with self._lock:
            if name not in self._pinned:
                try:
                    self._pinned[name] = await asyncio.to_thread(_read, name, self._folders[name])
                except UnsupportedBaseModel as error:
                    raise WrongBaseModel("base_model.name", str(error)) from error
            return self._pinned[name]

    def check_rank(self, contents: Contents) -> None:
        """Raises CannotServe for an adapter that no slot of inference would take."""
        if contents.rank > self._max_rank:
            raise CannotServe(
                "rank",
                f"rank is {contents.rank}, expected at most {self._max_rank}, what inference's slots hold "
                "(LORAFLEET_MAX_RANK)",
            )

    async def check(self, wanted: v1.BaseModel) -> Pinned:
        """The pinned model, which must be this exact revision; raises WrongBaseModel."""
        pinned = await self.get(wanted.name)
        if pinned.revision != wanted.revision:
            raise WrongBaseModel(
                "base_model.revision",
                f"the adapter is for {wanted.name} at revision {wanted.revision}, "
                f"but {pinned.revision} is pinned here; train it again on the pinned one",
            )
        return pinned


def _read(name: str, folder: Path) -> Pinned:
    return Pinned(name, base_model.revision(folder), base_model.target_shapes(folder))
