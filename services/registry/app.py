"""Composition root of the registry. `python -m services.registry.app` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from fleet_kit import tasks
from fleet_kit.service import create_app, serve
from lora_core.errors import AdapterError
from services.registry import api
from services.registry.base_models import BaseModels, WrongBaseModel
from services.registry.handlers import handlers
from services.registry.inspection import Bounds, Inspector
from services.registry.parts import Parts, RegistryService
from services.registry.quota import UploadsInFlight
from services.registry.scratch import Scratch
from services.registry.settings import RegistrySettings

log = structlog.get_logger()


@asynccontextmanager
async def parts(service: RegistryService) -> AsyncIterator[Parts]:
    """The pinned base models, read in the background so that the first registration need not wait for it."""
    settings = service.settings
    models = BaseModels(settings.pinned, Inspector(Bounds.of(settings)), settings.max_rank)
    reading = asyncio.create_task(_read_all(models))
    scratch = await asyncio.to_thread(Scratch, settings.scratch)
    try:
        yield Parts(models, scratch, UploadsInFlight(settings.max_uploads_at_once))
    finally:
        await tasks.end(reading)
        await asyncio.to_thread(scratch.close)


async def _read_all(models: BaseModels) -> None:
    for name in models.names:
        try:
            await models.get(name)
        except (AdapterError, WrongBaseModel, OSError) as error:
            # Registrations for this model fail with the same reason; the registry serves everything else.
            log.error("base model cannot be read", base_model=name, reason=str(error))


def build(settings: RegistrySettings | None = None) -> FastAPI:
    """The registry as an application; settings come from the environment where none are given."""
    chosen = settings or RegistrySettings()
    return create_app("registry", chosen, handlers=handlers, api=api.router, parts=parts)


if __name__ == "__main__":
    settings = RegistrySettings()
    serve(build(settings), settings)
