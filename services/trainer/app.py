"""The trainer service: `python -m services.trainer.app`."""

from fastapi import FastAPI

from fleet_kit.service import create_app, serve
from services.trainer import api
from services.trainer.handlers import handlers
from services.trainer.service import open_workshop
from services.trainer.settings import TrainerSettings


def build(settings: TrainerSettings | None = None) -> FastAPI:
    """The trainer as an application; settings come from the environment unless given."""
    return create_app("trainer", settings or TrainerSettings(), handlers=handlers, api=api.routes, parts=open_workshop)


if __name__ == "__main__":
    settings = TrainerSettings()
    serve(build(settings), settings)
