"""Composition root of the evaluator. Runs as `python -m services.evaluator.app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from fleet_kit import tasks
from fleet_kit.object_owner import keep_owning
from fleet_kit.service import create_app, serve
from services.evaluator import api
from services.evaluator.answer_metrics.metrics import AnswerMetrics
from services.evaluator.batch_client import BatchClient
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.garbage import KINDS, collect_now_and_then
from services.evaluator.golden.publication import publish_missed
from services.evaluator.handlers import handlers
from services.evaluator.judging.judges import Judges
from services.evaluator.judging.ledger import sweeping
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.parts import EvaluatorService, Parts
from services.evaluator.sandbox.sandbox import why_unavailable
from services.evaluator.settings import EvaluatorSettings


@asynccontextmanager
async def parts(service: EvaluatorService) -> AsyncIterator[Parts]:
    """Clients of inference and the configured judges."""
    await publish_missed(service)
    settings = service.settings

    def models_for(domain: str) -> OpenAIClient:
        headers = service.credential.acting_for([domain])
        return OpenAIClient(service.http, settings.inference_url, settings.request_timeout, headers)

    def batches_for(domain: str) -> BatchClient:
        headers = service.credential.acting_for([domain])
        return BatchClient(service.http, settings.inference_url, settings.request_timeout, headers)

    unavailable = await why_unavailable()
    metrics = AnswerMetrics(
        settings.metrics,
        settings.metric_commands,
        settings.embedding_model_name,
        confined=settings.confined_metrics,
        unavailable=unavailable,
    )
    tests = CodeTests(settings.code, unavailable)
    judges = Judges(settings, service.http, models_for, tests)
    kept = timedelta(days=settings.judge_keep_days)
    owning = asyncio.create_task(keep_owning(service.db, service.blobs, KINDS))
    collecting = asyncio.create_task(collect_now_and_then(service))
    try:
        async with sweeping(service.transaction, service.blobs, kept):
            yield Parts(models_for, batches_for, judges, metrics, tests)
    finally:
        await tasks.end(owning, collecting)


def build(settings: EvaluatorSettings | None = None) -> FastAPI:
    """The application; settings default to the environment's."""
    return create_app(
        "evaluator",
        settings or EvaluatorSettings(),
        handlers=handlers,
        api=api.router,
        parts=parts,
    )


if __name__ == "__main__":
    _settings = EvaluatorSettings()
    serve(build(_settings), _settings)
