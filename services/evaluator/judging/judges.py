"""The judges that the settings name, made for one evaluation."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from fleet_kit.db import Connection
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.domain import Evaluation
from services.evaluator.judging import calibration_store
from services.evaluator.judging.calibration import UNCALIBRATED
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.judge import Judge, ReferenceJudge
from services.evaluator.judging.llm_judge import LLMJudge
from services.evaluator.judging.pairwise_judge import PairwiseJudge
from services.evaluator.judging.panel_judge import Member, PanelJudge
from services.evaluator.judging.panel_pairs import PairJudges, PairMember
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.settings import REFERENCE, EvaluatorSettings


class Judges:
    """Judges by golden data set and domain. Their endpoints are shared by all evaluations of this process."""

    def __init__(
        self,
        settings: EvaluatorSettings,
        http: httpx.AsyncClient,
        models_for: Callable[[str], OpenAIClient],
        tests: CodeTests,
    ) -> None:
        """models_for gives access to inference for one domain alone."""
        self._settings = settings
        self._models_for = models_for
        self._tests = tests
        self._endpoints = {name: JudgeEndpoint(name, chosen, http) for name, chosen in settings.judges.items()}

    async def judge(self, connection: Connection, evaluation: Evaluation, dataset_id: str) -> Judge:
        """Who judges the evaluation with this golden data set, calibrated as known when it was requested: taken up
        again later, it is still the same judge."""
        name = self._settings.judge_for(evaluation.domain, dataset_id)
        if name not in self._settings.panels:
            return self._single(name, evaluation)
        members = []
        for member in self._settings.panels[name]:
            judge = self._single(member, evaluation)
            fitted, pairs = await calibration_store.calibration(
                connection, judge.name, evaluation.domain, evaluation.created_at
            )
            members.append(Member(judge, fitted, pairs))
        return PanelJudge(name, members)

    async def pairwise(self, connection: Connection, evaluation: Evaluation, dataset_id: str) -> PairJudges | None:
        """Who compares pairs of answers: the judge, or a panel's members that do, measured as known when the evaluation
        was requested; None where none does."""
        name = self._settings.judge_for(evaluation.domain, dataset_id)
        comparing = []
        for member in self._settings.panels.get(name, (name,)):
            chosen = self._settings.judges.get(member)
            if chosen is None or not chosen.pairwise:
                continue
            called = self._single(member, evaluation).name
            _, pairs = await calibration_store.calibration(connection, called, evaluation.domain, evaluation.created_at)
            comparing.append(PairMember(called, PairwiseJudge(member, chosen, self._endpoints[member]), pairs))
        return PairJudges(comparing) if comparing else None

    def without_reference(self, domain: str) -> Judge | None:
        """Who judges a domain's live answers: its judge, or its panel's language models; None where it has none."""
        name = self._settings.judge_for(domain, "")
        models = [one for one in self._settings.panels.get(name, (name,)) if one != REFERENCE]
        judges = [
            LLMJudge(one, self._settings.judges[one], self._endpoints[one], self._tests, without_reference=True)
            for one in models
        ]
        if name not in self._settings.panels:
            return judges[0] if judges else None
        return PanelJudge(name, [Member(one, UNCALIBRATED) for one in judges]) if judges else None

    def _single(self, name: str, evaluation: Evaluation) -> Judge:
        reference = ReferenceJudge(
            self._models_for(evaluation.domain),
            base_model=evaluation.base_model,
            embeddings_model=self._settings.embedding_model_name,
            tests=self._tests,
        )
        if name == REFERENCE:
            return reference
        chosen = self._settings.judges[name]
        return LLMJudge(name, chosen, self._endpoints[name], self._tests, reference if chosen.rules_first else None)
