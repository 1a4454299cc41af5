"""Composition root of the evaluator. Runs as `python -m services.evaluator.app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from fleet_kit.service import create_app, serve
from services.evaluator import api
from services.evaluator.domain import Evaluation
from services.evaluator.golden.publication import publish_missed
from services.evaluator.handlers import handlers
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.judge import Judge, ReferenceJudge
from services.evaluator.judging.ledger import sweeping
from services.evaluator.judging.llm_judge import LLMJudge
from services.evaluator.judging.pairwise_judge import PairwiseJudge
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.parts import EvaluatorService, Parts
from services.evaluator.settings import REFERENCE, EvaluatorSettings


@asynccontextmanager
async def parts(service: EvaluatorService) -> AsyncIterator[Parts]:
    """Clients of inference and the configured judges."""
    await publish_missed(service)
    settings = service.settings

    def models_for(domain: str) -> OpenAIClient:
        headers = service.credential.acting_for([domain])
        return OpenAIClient(service.http, settings.inference_url, settings.request_timeout, headers)

    endpoints = {name: JudgeEndpoint(name, asked, service.http) for name, asked in settings.judges.items()}

    def judge_for(evaluation: Evaluation, dataset_id: str) -> Judge:
        name = settings.judge_for(evaluation.domain, dataset_id)
        reference = ReferenceJudge(
            models_for(evaluation.domain),
            base_model=evaluation.base_model,
            embeddings_model=settings.embedding_model_name,
        )
        if name == REFERENCE:
            return reference
        asked = settings.judges[name]
        return LLMJudge(name, asked, endpoints[name], reference if asked.rules_first else None)

    def pairwise_for(evaluation: Evaluation, dataset_id: str) -> PairwiseJudge | None:
        name = settings.judge_for(evaluation.domain, dataset_id)
        if name == REFERENCE or not settings.judges[name].pairwise:
            return None
        return PairwiseJudge(name, settings.judges[name], endpoints[name])

    async with sweeping(service.transaction, service.blobs, timedelta(days=settings.judge_keep_days)):
        yield Parts(models_for=models_for, judge_for=judge_for, pairwise_for=pairwise_for)


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
