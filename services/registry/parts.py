"""What the registry stands on beyond the kit, and the type under which handlers and endpoints get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fleet_kit.service import Service
from services.registry.base_models import BaseModels
from services.registry.quota import UploadsInFlight
from services.registry.scratch import Scratch
from services.registry.settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class Parts:
    """The pinned base models, and what receives and checks files."""

    base_models: BaseModels
    scratch: Scratch
    uploads: UploadsInFlight


RegistryService: TypeAlias = Service[RegistrySettings, Parts]
