"""Composition root of the router. Run it: `python -m services.router.app`."""

from fastapi import FastAPI

from fleet_kit.service import create_app, serve
from services.router.api import router
from services.router.handlers import handlers
from services.router.parts import open_parts
from services.router.settings import RouterSettings


def build(settings: RouterSettings | None = None) -> FastAPI:
    """The application; settings come from the environment where none are given."""
    return create_app("router", settings or RouterSettings(), handlers=handlers, api=router, parts=open_parts)


if __name__ == "__main__":
    settings = RouterSettings()
    serve(build(settings), settings)
