"""Composition root of the evaluator. Runs as `python -m services.evaluator.app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fleet_kit.service import create_app, serve
from services.evaluator import api
from services.evaluator.golden_publication import publish_missed
from services.evaluator.handlers import EvaluatorService, handlers
from services.evaluator.judges import ReferenceJudge
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.run import Bench
from services.evaluator.settings import EvaluatorSettings


@asynccontextmanager
async def _parts(service: EvaluatorService) -> AsyncIterator[Bench]:
    await publish_missed(service)
    settings = service.settings

    def models_for(domain: str) -> OpenAIClient:
        headers = service.credential.acting_for([domain])
        return OpenAIClient(service.http, settings.inference_url, settings.request_timeout, headers)

    def judge_for(domain: str, base_model: str) -> ReferenceJudge:
        embeddings = settings.embedding_model_name
        return ReferenceJudge(models_for(domain), base_model=base_model, embeddings_model=embeddings)

    yield Bench(settings=settings, models_for=models_for, judge_for=judge_for, blobs=service.blobs)


def build(settings: EvaluatorSettings | None = None) -> FastAPI:
    """The application; settings default to the environment's."""
    return create_app(
        "evaluator",
        settings or EvaluatorSettings(),
        handlers=handlers,
        api=api.router,
        parts=_parts,
    )


if __name__ == "__main__":
    _settings = EvaluatorSettings()
    serve(build(_settings), _settings)
