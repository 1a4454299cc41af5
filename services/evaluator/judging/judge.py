"""Judge back ends: how an answer becomes a judgement. Anything with these members can judge."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from services.evaluator.code_tests.code_tests import RULE, CodeRun, CodeTests
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import reference_judge
from services.evaluator.judging.calibration import UNCALIBRATED, Calibration
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.judgement import Judgement, vetoed
from services.evaluator.judging.ledger import Ledger
from services.evaluator.judging.signals import NOTHING, Signals, measure, texts_to_embed
from services.evaluator.judging.text import words
from services.evaluator.openai_client import OpenAIClient

ABSURD = -1e4  # a log-likelihood that stands for "impossible" where a server gives minus infinity


@dataclass(frozen=True)
class Finding:
    """A judgement with the raw material it was made from, kept in the report."""

    judgement: Judgement
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class JudgeDescription:
    """Who judged: events and reports carry it. A reference judge has no prompt."""

    name: str
    version: str
    model: str
    prompt_sha256: str
    parameters: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def with_tests(judgement: Judgement, run: CodeRun | None) -> Judgement:
    """The judgement of an answer whose sample has tests: failed ones are a broken must-rule."""
    if run is None or run.passed:
        return judgement
    return vetoed(judgement, {Criterion.ACCURACY: (f"{RULE} ({run.why})",)})


class Judge(Protocol):
    """One backend. `name` stands for all that its verdicts depend on: results are compared only under the same name."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> JudgeDescription: ...

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        """Names of the judges whose mean this one gives, with their calibrations; a single judge has its own."""
        ...

    async def judge(self, sample: GoldenSample, question: str, answer: str, ledger: Ledger) -> Finding: ...


class ReferenceJudge:
    """The deterministic reference judge on a server's embeddings and its base model's likelihoods."""

    def __init__(self, models: OpenAIClient, *, base_model: str, embeddings_model: str, tests: CodeTests) -> None:
        self._models = models
        self._tests = tests
        self._base_model = base_model
        self._embeddings_model = embeddings_model

    @property
    def name(self) -> str:
        return reference_judge.NAME

    @property
    def description(self) -> JudgeDescription:
        name, _, version = reference_judge.NAME.partition("/")
        used = {"base_model": self._base_model, "embeddings_model": self._embeddings_model}
        return JudgeDescription(name, version, "", "", used)

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        return {self.name: UNCALIBRATED}

    async def judge(
        self,
        sample: GoldenSample,
        question: str,
        answer: str,
        ledger: Ledger | None = None,  # noqa: ARG002 - it calls no judge
    ) -> Finding:
        """Raises what the client raises; an empty answer needs no model."""
        sample = with_history(sample)
        question = "\n".join(text for text in (sample.system, sample.transcript, question) if text)
        if not words(answer):
            return Finding(reference_judge.judge(sample, answer, NOTHING), NOTHING.to_json())  # looks at no rule
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
        return await settled(sample, answer, signals, self._tests)


def with_history(sample: GoldenSample) -> GoldenSample:
    """The sample whose prompt is all turns: what earlier ones reveal is no merit of the answer."""
    return replace(sample, prompt=f"{sample.transcript}\n{sample.prompt}") if sample.history else sample


async def settled(sample: GoldenSample, answer: str, signals: Signals, tests: CodeTests) -> Finding:
    """What the reference judge makes of an answer with these signals. Raises EvaluationFailure as the tests do."""
    run = await tests.run(sample, answer)
    # A sample's rules may take a second of arithmetic; the event loop serves others meanwhile.
    found = await asyncio.to_thread(reference_judge.judge, sample, answer, signals, run.passed if run else None)
    return Finding(with_tests(found, run), signals.to_json())
