"""Judge backends: how an answer becomes a judgement. Anything with these two members can judge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.evaluator import judge
from services.evaluator.golden import GoldenSample
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.signals import NOTHING, measure, texts_to_embed
from services.evaluator.text import words

ABSURD = -1e4  # a log-likelihood that stands for "impossible" where a server gives minus infinity


@dataclass(frozen=True)
class Finding:
    """A judgement with the raw material it was made from, kept in the report."""

    judgement: judge.Judgement
    evidence: Mapping[str, Any]


class Judge(Protocol):
    """One backend. `name` carries its version: results are compared only under the same name."""

    @property
    def name(self) -> str: ...

    async def judge(self, sample: GoldenSample, question: str, answer: str) -> Finding: ...


class ReferenceJudge:
    """The deterministic reference judge on a server's embeddings and its base model's likelihoods."""

    def __init__(self, models: OpenAIClient, *, base_model: str, embeddings_model: str) -> None:
        self._models = models
        self._base_model = base_model
        self._embeddings_model = embeddings_model

    @property
    def name(self) -> str:
        return judge.NAME

    async def judge(self, sample: GoldenSample, question: str, answer: str) -> Finding:
        """Raises what the client raises; an empty answer needs no model."""
        if not words(answer):
            return Finding(judge.judge(sample, answer, NOTHING), NOTHING.to_json())  # looks at no rule
        expected = sample.expected_output
        vectors, mine, theirs = await asyncio.gather(
            self._models.embed(self._embeddings_model, texts_to_embed(sample.prompt, expected, answer)),
            self._models.likelihood(self._base_model, question, answer),
            self._models.likelihood(self._base_model, question, expected),
        )
        signals = measure(
            sample.prompt,
            expected,
            answer,
            vectors,
            answer_likelihood=None if mine is None else max(mine, ABSURD),
            expected_likelihood=None if theirs is None else max(theirs, ABSURD),
        )
        # A sample's rules may take a second of arithmetic; the event loop serves others meanwhile.
        return Finding(await asyncio.to_thread(judge.judge, sample, answer, signals), signals.to_json())
