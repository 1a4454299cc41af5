"""The trainer service: `python -m services.trainer.app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fleet_kit.service import create_app, serve
from services.trainer import api
from services.trainer.datasets.sources.sql_connection import check_sources
from services.trainer.handlers import handlers
from services.trainer.parts import TrainerParts, TrainerService, open_parts
from services.trainer.reports.metrics import counting
from services.trainer.retraining.evaluation import retraining
from services.trainer.runs.housekeeping import housekeeping
from services.trainer.settings import TrainerSettings


def build(settings: TrainerSettings | None = None) -> FastAPI:
    """The trainer as an application; settings come from the environment unless given."""
    return create_app("trainer", settings or TrainerSettings(), handlers=handlers, api=api.routes, parts=_open)


@asynccontextmanager
async def _open(service: TrainerService) -> AsyncIterator[TrainerParts]:
    embedding_model = service.settings.embedding_model
    if embedding_model is not None and not embedding_model.is_dir():
        raise ValueError(
            f"LORAFLEET_EMBEDDING_MODEL: {embedding_model} is not a folder, expected that of a sentence embedding model"
        )
    if service.settings.sql_sources:
        await check_sources(service.settings.sql_sources, service.db)
    async with open_parts(service) as parts, counting(service), housekeeping(service), retraining(service):
        yield parts


if __name__ == "__main__":
    settings = TrainerSettings()
    serve(build(settings), settings)
