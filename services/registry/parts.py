"""What the registry has beyond the kit's `Service`, and the types under which handlers and endpoints get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends

from fleet_kit.http import dependency
from fleet_kit.service import Service
from services.registry.base_models import BaseModels
from services.registry.imports.hub import Hub
from services.registry.quota import UploadsInFlight
from services.registry.scratch import Scratch
from services.registry.settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class Parts:
    """The pinned base models, and what receives and checks files."""

    base_models: BaseModels
    scratch: Scratch
    hub: Hub
    uploads: UploadsInFlight


RegistryService: TypeAlias = Service[RegistrySettings, Parts]


ThisService = Annotated[RegistryService, Depends(dependency(RegistryService))]
