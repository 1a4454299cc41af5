"""The judges that the settings name, made for one evaluation."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from fleet_kit.db import Connection
from services.evaluator.domain import Evaluation
from services.evaluator.judging import calibration_store
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.judge import Judge, ReferenceJudge
from services.evaluator.judging.llm_judge import LLMJudge
from services.evaluator.judging.pairwise_judge import PairwiseJudge
from services.evaluator.judging.panel_judge import Member, PanelJudge
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.settings import REFERENCE, EvaluatorSettings


class Judges:
    """Judges by golden data set and domain. Their endpoints are shared by all evaluations of this process."""

    def __init__(
        self, settings: EvaluatorSettings, http: httpx.AsyncClient, models_for: Callable[[str], OpenAIClient]
    ) -> None:
        """models_for gives access to inference for one domain alone."""
        self._settings = settings
        self._models_for = models_for
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
            fitted = await calibration_store.calibration(
                connection, judge.name, evaluation.domain, evaluation.created_at
            )
            members.append(Member(judge, fitted))
        return PanelJudge(name, members)

    def pairwise(self, evaluation: Evaluation, dataset_id: str) -> PairwiseJudge | None:
        """Who compares pairs of answers; None where the judge does not. A panel compares none."""
        name = self._settings.judge_for(evaluation.domain, dataset_id)
        chosen = self._settings.judges.get(name)
        return PairwiseJudge(name, chosen, self._endpoints[name]) if chosen and chosen.pairwise else None

    def _single(self, name: str, evaluation: Evaluation) -> Judge:
        reference = ReferenceJudge(
            self._models_for(evaluation.domain),
            base_model=evaluation.base_model,
            embeddings_model=self._settings.embedding_model_name,
        )
        if name == REFERENCE:
            return reference
        chosen = self._settings.judges[name]
        return LLMJudge(name, chosen, self._endpoints[name], reference if chosen.rules_first else None)
