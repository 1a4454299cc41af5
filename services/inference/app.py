"""Composition root of inference. Run it: `python -m services.inference.app`."""

from fastapi import APIRouter, FastAPI

from fleet_kit.service import create_app, serve
from services.inference.composition import open_parts
from services.inference.http import admin, api, error_responses
from services.inference.http.quota_headers import QuotaHeaders
from services.inference.replicas.forwarding import AnsweredBy
from services.inference.settings import InferenceSettings


def build(settings: InferenceSettings | None = None) -> FastAPI:
    """The application; settings come from the environment where none are given."""
    settings = settings or InferenceSettings()
    router = APIRouter()
    router.include_router(api.router)
    router.include_router(admin.router)
    router.include_router(admin.fleet)
    app = create_app("inference", settings, handlers=None, api=router, parts=open_parts, database=False)
    error_responses.install(app)
    app.add_middleware(QuotaHeaders)
    app.add_middleware(AnsweredBy, replica=settings.replica)
    return app


if __name__ == "__main__":
    settings = InferenceSettings()
    serve(build(settings), settings)
