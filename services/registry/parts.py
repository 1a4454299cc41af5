"""What the registry stands on beyond the kit, and the type under which handlers and endpoints get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fleet_kit.service import Service
from services.registry.base_models import BaseModels
from services.registry.settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class Parts:
    """The pinned base models."""

    base_models: BaseModels


RegistryService: TypeAlias = Service[RegistrySettings, Parts]
