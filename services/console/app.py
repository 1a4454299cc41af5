"""Composition root of the console. `python -m services.console.app` runs it."""

from __future__ import annotations

from fastapi import FastAPI

from fleet_kit.service import create_app, serve
from services.console import api, error_pages
from services.console.assets import ASSETS
from services.console.pages.provider_sign_in import BEGIN, CALLBACK
from services.console.pages.sign_in import SIGN_IN
from services.console.parts import open_parts
from services.console.session import SessionCookie
from services.console.settings import ConsoleSettings


def build(settings: ConsoleSettings | None = None) -> FastAPI:
    """The console as an application; settings come from the environment where none are given."""
    chosen = settings or ConsoleSettings()
    public = {"/", SIGN_IN, BEGIN, CALLBACK, *(asset.path for asset in ASSETS.values())}
    app = create_app("console", chosen, api=api.router, parts=open_parts, database=False, public=public)
    error_pages.install(app)
    app.add_middleware(SessionCookie)
    return app


if __name__ == "__main__":
    settings = ConsoleSettings()
    serve(build(settings), settings)
