"""Composition root of the registry. `python -m services.registry.app` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fleet_kit import tasks
from fleet_kit.object_owner import keep_owning
from fleet_kit.service import create_app, serve
from services.registry import api
from services.registry.answer_retention import forget_old
from services.registry.base_models import BaseModels
from services.registry.garbage import KINDS, collect_now_and_then
from services.registry.handlers import handlers
from services.registry.imports.guard import Hosts
from services.registry.imports.hub import Hub
from services.registry.inspection import Bounds, Inspector
from services.registry.migrating.follow import follow_base_models
from services.registry.parts import Parts, RegistryService
from services.registry.quota import UploadsInFlight
from services.registry.rollout.watch import watch
from services.registry.scratch import Scratch
from services.registry.settings import RegistrySettings


@asynccontextmanager
async def parts(service: RegistryService) -> AsyncIterator[Parts]:
    """The pinned base models, read in the background so that the first registration need not wait for them."""
    settings = service.settings
    models = BaseModels(settings.pinned, Inspector(Bounds.of(settings)), settings.max_rank)
    background = [asyncio.create_task(work) for work in (models.read_all(), forget_old(service), watch(service))]
    background.append(asyncio.create_task(follow_base_models(service)))
    background.append(asyncio.create_task(collect_now_and_then(service)))
    background.append(asyncio.create_task(keep_owning(service.db, service.blobs, KINDS)))
    service.extra_checks["base_models"] = models.ready
    scratch = await asyncio.to_thread(Scratch, settings.scratch)
    try:
        yield Parts(models, scratch, _hub(settings), UploadsInFlight(settings.max_uploads_at_once))
    finally:
        await tasks.end(*background)
        await asyncio.to_thread(scratch.close)


def _hub(settings: RegistrySettings) -> Hub:
    hosts = Hosts(settings.import_hosts, settings.import_private_hosts)
    return Hub(hosts, most=settings.max_artifact_bytes, seconds=settings.import_seconds)


def build(settings: RegistrySettings | None = None) -> FastAPI:
    """The registry as an application; settings come from the environment where none are given."""
    chosen = settings or RegistrySettings()
    return create_app("registry", chosen, handlers=handlers, api=api.router, parts=parts)


if __name__ == "__main__":
    settings = RegistrySettings()
    serve(build(settings), settings)
